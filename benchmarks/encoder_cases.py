"""Models and pictures to measure encoders on, and what the reference gives for them.

Imports the model alone, so that it works where not all is installed that the application needs.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from vitmae_search.bundled import bundled
from vitmae_search.training import PRESETS
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEConfig, ViTMAEForPreTraining

if TYPE_CHECKING:
    from vitmae_search.embedding import GuardedEmbedder

SHIPPED = bundled("data") / "models" / "vitmae-tiny-patch8-64"
_SMALL_DECODER: dict[str, Any] = {
    "decoder_num_hidden_layers": 1,
    "decoder_hidden_size": 64,
    "decoder_intermediate_size": 64,
    "decoder_num_attention_heads": 2,
}
"""Nobody runs it here."""
FIELDS: dict[str, dict[str, Any]] = {
    "base": PRESETS["base"],
    "large": PRESETS["large"],
    "minute": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 256,
        "image_size": 32,
        "patch_size": 8,
    },
}
"""What is not as in ViT-B/16 at 224 pixels. "minute" is for trying a benchmark, not for figures."""

_SAMPLES = bundled("data/samples.json")
_DISTINCT = 240

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A model in a folder, and a batch: `images` as ours takes them, `pixels` (N, 3, H, W) as others do."""

    folder: Path
    images: NDArray[np.uint8]
    pixels: Tensor


def random_case(name: str, batch: int, folder: Path) -> Case:
    """A model of `FIELDS`, made in `folder`; its weights are random, which are as fast as any."""
    torch.manual_seed(0)
    path = folder / name
    config = ViTMAEConfig(**FIELDS[name], **_SMALL_DECODER)
    ViTMAEForPreTraining(config).save_pretrained(path)
    height, width = config.image_shape
    ViTImageProcessor(size={"height": height, "width": width}).save_pretrained(path)
    return case_of(path, height, batch)


def case_of(model: Path, side: int, batch: int) -> Case:
    """With the demo's photos."""
    images = photos(side, batch)
    pixels = ViTImageProcessor.from_pretrained(str(model)).rescale_and_normalize(images.transpose(0, 3, 1, 2))
    return Case(model, images, torch.from_numpy(pixels))


def photos(side: int, count: int) -> NDArray[np.uint8]:
    """(count, side, side, 3): parts of the demo's photos, up to `_DISTINCT` of them, then these again."""
    sources = [
        _open(one["package"], one["file"]) for one in json.loads(_SAMPLES.read_text("utf-8"))["photos"]
    ]
    random = np.random.default_rng(0)
    parts = [_part(sources[number % len(sources)], side, random) for number in range(min(count, _DISTINCT))]
    return np.stack(parts)[np.arange(count) % _DISTINCT]


def _part(image: Image.Image, side: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """(side, side, 3): a square of at least half the shorter side."""
    length = min(image.size) * random.uniform(0.5, 1.0)
    left, top = (random.uniform(0, edge - length) for edge in image.size)
    box = (left, top, left + length, top + length)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box))


def _open(package: str, file: str) -> Image.Image:
    """A picture in an installed package, which is found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit("the photos come with scikit-image and scikit-learn: pip install -e '.[demo]'")
    with Image.open(Path(spec.origin).parent / file) as image:
        return image.convert("RGB")


def hf_model(folder: Path, dtype: torch.dtype) -> nn.Module:
    """The reference's encoder, which removes no patch."""
    import transformers

    quiet: Any = transformers.utils.logging
    quiet.set_verbosity_error()  # it would list the decoder's weights, left unread
    quiet.disable_progress_bar()
    model: Any = transformers.ViTMAEModel.from_pretrained(folder, mask_ratio=0.0, dtype=dtype)
    module: nn.Module = model.eval()
    return module


def open_ours(folder: Path, device: str, precision: str) -> GuardedEmbedder:
    """The plugin, as `index` opens it; the mean of the last layer's patch tokens, without a projection."""
    from vitmae_search.embedding import PluginHost, open_embedder

    options = {"model": str(folder), "layers": "last", "pooling": "mean"}
    return open_embedder(PluginHost(packages=False).get("vitmae"), options, device, precision)


def pooled(model: nn.Module, pixels: Tensor) -> Rows:
    """Its tokens come in a random order, which their mean does not know."""
    with torch.no_grad():
        tokens = model(pixels).last_hidden_state
        rows: Rows = tokens[:, 1:].float().mean(dim=1).numpy()
    return rows


def one_at_a_time(model: nn.Module, pixels: Tensor) -> Rows:
    """As the reference's documentation embeds."""
    return np.concatenate([pooled(model, one[None]) for one in pixels])


def unit(rows: Rows) -> Rows:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / lengths, np.float32)


def installed(*packages: str) -> bool:
    """Whether they all are; says which are not."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        print(f"left out: {', '.join(missing)} not installed")
    return not missing
