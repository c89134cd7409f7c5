"""Models and images to measure encoders on, and the reference's vectors of them.

It imports only the model's package, so that it works where the application's other dependencies are missing.
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

from vitmae_search.bundled import DEFAULT_MODEL, bundled
from vitmae_search.training import PRESETS
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEConfig, ViTMAEForPreTraining

if TYPE_CHECKING:
    from vitmae_search.embedding import GuardedEmbedder

SHIPPED = bundled("data") / "models" / DEFAULT_MODEL
_SMALL_DECODER: dict[str, Any] = {
    "decoder_num_hidden_layers": 1,
    "decoder_hidden_size": 64,
    "decoder_intermediate_size": 64,
    "decoder_num_attention_heads": 2,
}
"""The decoder is not run here."""
MODEL_CONFIGS: dict[str, dict[str, Any]] = {
    "base": PRESETS["base"],
    "large": PRESETS["large"],
    "debug": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 256,
        "image_size": 32,
        "patch_size": 8,
    },
}
"""Fields that differ from ViT-B/16 at 224 pixels. "debug" is for trying out a benchmark."""

_SAMPLES = bundled("data/samples.json")
_DISTINCT = 240

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class EncoderCase:
    """A model and a batch.

    Attributes:
        folder: The checkpoint's folder.
        images: (N, H, W, 3) uint8, which ours takes.
        pixels: (N, 3, H, W) float32, normalised, which others take.
    """

    folder: Path
    images: NDArray[np.uint8]
    pixels: Tensor


def random_case(name: str, batch: int, folder: Path) -> EncoderCase:
    """Make a model with random weights, which are as fast as any, and a batch.

    Args:
        name: A name of `MODEL_CONFIGS`.
        batch: Images.
        folder: Where the checkpoint is written.
    """
    torch.manual_seed(0)
    path = folder / name
    config = ViTMAEConfig(**MODEL_CONFIGS[name], **_SMALL_DECODER)
    ViTMAEForPreTraining(config).save_pretrained(path)
    height, width = config.image_shape
    ViTImageProcessor(size={"height": height, "width": width}).save_pretrained(path)
    return case_from_model(path, height, batch)


def case_from_model(model: Path, side: int, batch: int) -> EncoderCase:
    """A batch of crops of the demo's photos for a model.

    Args:
        model: The checkpoint's folder.
        side: Side of its input in pixels.
        batch: Images.
    """
    images = demo_crops(side, batch)
    processor = ViTImageProcessor.from_pretrained(str(model))
    pixels = processor.rescale_and_normalize(images.transpose(0, 3, 1, 2))
    return EncoderCase(model, images, torch.from_numpy(pixels))


def demo_crops(side: int, count: int) -> NDArray[np.uint8]:
    """Square crops of the demo's photos; after `_DISTINCT` of them they repeat.

    Args:
        side: Side of the images in pixels.
        count: How many.

    Returns:
        (count, side, side, 3) uint8.
    """
    sources = [
        _open(one["package"], one["file"]) for one in json.loads(_SAMPLES.read_text("utf-8"))["photos"]
    ]
    random = np.random.default_rng(0)
    parts = [
        _random_square(sources[number % len(sources)], side, random)
        for number in range(min(count, _DISTINCT))
    ]
    return np.stack(parts)[np.arange(count) % _DISTINCT]


def _random_square(image: Image.Image, side: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """A random square of at least half the shorter side, resized: (side, side, 3)."""
    length = min(image.size) * random.uniform(0.5, 1.0)
    left, top = (random.uniform(0, edge - length) for edge in image.size)
    box = (left, top, left + length, top + length)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box))


def _open(package: str, file: str) -> Image.Image:
    """Open an image file of an installed package, without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit("the photos come with scikit-image and scikit-learn: pip install -e '.[demo]'")
    with Image.open(Path(spec.origin).parent / file) as image:
        return image.convert("RGB")


def hf_model(folder: Path, dtype: torch.dtype) -> nn.Module:
    """The reference's `ViTMAEModel` at mask ratio 0.

    Args:
        folder: The checkpoint's folder.
        dtype: The weights' type.
    """
    import transformers

    quiet: Any = transformers.utils.logging
    quiet.set_verbosity_error()  # it would list the decoder's weights, left unread
    quiet.disable_progress_bar()
    model: Any = transformers.ViTMAEModel.from_pretrained(folder, mask_ratio=0.0, dtype=dtype)
    module: nn.Module = model.eval()
    return module


def open_plugin(
    folder: Path, device: str, precision: str, runtime: str = "auto", quantization: str = "none"
) -> GuardedEmbedder:
    """Open the plugin as `index` does, for the mean of the last layer's patch tokens without a projection.

    Args:
        folder: The checkpoint's folder.
        device: As `--device` takes it.
        precision: As `--precision` takes it.
        runtime: The plugin's option.
        quantization: Likewise.
    """
    from vitmae_search.embedding import PluginHost, open_embedder

    options = {"model": str(folder), "layers": "last", "pooling": "mean", "runtime": runtime}
    options["quantization"] = quantization
    return open_embedder(PluginHost(packages=False).get("vitmae"), options, device, precision)


def mean_pooled(model: nn.Module, pixels: Tensor) -> Rows:
    """The mean of the patch tokens, which does not depend on their (random) order.

    Args:
        model: A model of transformers.
        pixels: (N, 3, H, W).

    Returns:
        (N, D) float32.
    """
    with torch.no_grad():
        tokens = model(pixels).last_hidden_state
        rows: Rows = tokens[:, 1:].float().mean(dim=1).cpu().numpy()
    return rows


def one_at_a_time(model: nn.Module, pixels: Tensor) -> Rows:
    """`mean_pooled` for one image at a time, as the reference's documentation does.

    Args:
        model: A model of transformers.
        pixels: (N, 3, H, W).
    """
    return np.concatenate([mean_pooled(model, one[None]) for one in pixels])


def unit_rows(rows: Rows) -> Rows:
    """(N, D) scaled to rows of unit length."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / lengths, np.float32)


def installed(*packages: str) -> bool:
    """Whether all of these packages are installed; prints those that are not."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        print(f"left out: {', '.join(missing)} not installed")
    return not missing
