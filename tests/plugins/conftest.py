"""Small checkpoints with random weights, on disk, as `transformers` and we save them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitmae_search.bundled import bundled
from vitmae_search.embedding import GuardedEmbedder, load_drop_in, open_embedder

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
    "decoder_hidden_size": 24,
    "decoder_num_attention_heads": 3,
    "decoder_num_hidden_layers": 2,
    "decoder_intermediate_size": 40,
}


@pytest.fixture(scope="session")
def tiny_config() -> dict[str, int]:
    """A configuration's fields for a network that takes no time."""
    return TINY


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def reference(tiny_config: dict[str, int]) -> Any:
    """The reference model, every number random: a fresh one has zeros where positions should be."""
    import transformers

    model = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**tiny_config))
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
    return model.eval()


@pytest.fixture(scope="session")
def checkpoint(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference's own save, with a preprocessor file."""
    import transformers

    folder = tmp_path_factory.mktemp("models") / "tiny-reference"
    reference.save_pretrained(folder)
    processor = transformers.ViTImageProcessorPil(
        size={"height": 32, "width": 32}, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )
    processor.save_pretrained(folder)
    return folder


OpenModel = Callable[..., GuardedEmbedder]


@pytest.fixture
def open_model(checkpoint: Path) -> Iterator[OpenModel]:
    """`open_model(layers="-2")`: the plugin on the small checkpoint, closed after the test."""
    plugin = load_drop_in(bundled("plugins") / "vitmae")
    opened: list[GuardedEmbedder] = []

    def make(*, device: str = "cpu", precision: str = "fp32", **options: Any) -> GuardedEmbedder:
        options.setdefault("model", str(checkpoint))
        opened.append(open_embedder(plugin, options, device, precision))
        return opened[-1]

    yield make
    for embedder in opened:
        embedder.close()


@pytest.fixture(scope="session")
def plugin_module() -> Callable[[str], ModuleType]:
    """`plugin_module("lanes")`: one of the plugin's own modules, as a drop-in is named."""
    plugin = load_drop_in(bundled("plugins") / "vitmae")
    plugin.open({**plugin.info.options}, device="cpu", precision="fp32").close()  # imports them all
    return lambda name: sys.modules[f"{type(plugin).__module__}.{name}"]


@pytest.fixture(scope="session")
def photos(real_photos: dict[str, Path]) -> list[Image.Image]:
    """Real photos of different shapes, one of them one pixel high."""
    names = ("astronaut", "chelsea", "coffee", "rocket", "china", "flower")
    images = [Image.open(real_photos[name]).convert("RGB") for name in names]
    return [*images, images[0].crop((0, 60, 400, 61))]


@pytest.fixture
def embed_all(photos: list[Image.Image]) -> Callable[[GuardedEmbedder], np.ndarray]:
    """The photos' vectors."""
    return lambda embedder: embedder.embed(np.stack([embedder.prepare(photo) for photo in photos]))
