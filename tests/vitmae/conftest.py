"""Small models with random weights and tables, and the reference to compare them with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from vitmae_search.vitmae import Checkpoint, CheckpointFiles, ViTMAEConfig, ViTMAEForPreTraining
from vitmae_search.vitmae.checkpoint.keys import to_hub_names

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
    "decoder_hidden_size": 24,
    "decoder_num_attention_heads": 3,
    "decoder_num_hidden_layers": 2,
    "decoder_intermediate_size": 40,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny() -> Callable[..., dict[str, Any]]:
    """The fields of a small model, some of them replaced."""
    return lambda **fields: {**TINY, **fields}


@pytest.fixture
def randomise() -> Callable[[nn.Module], nn.Module]:
    """Fill every parameter and every table with random values.

    A fresh reference model has zeros for positions, CLS and mask token, and would agree with anything.
    """

    def fill(model: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for value in model.state_dict().values():
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
        return model.eval()

    return fill


@pytest.fixture
def random_model(
    tiny: Callable[..., dict[str, Any]], randomise: Callable[[nn.Module], nn.Module]
) -> Callable[..., ViTMAEForPreTraining]:
    """A small model of ours with random weights and tables."""

    def make(**fields: Any) -> ViTMAEForPreTraining:
        model = randomise(ViTMAEForPreTraining(ViTMAEConfig(**tiny(**fields))))
        assert isinstance(model, ViTMAEForPreTraining)
        return model

    return make


@pytest.fixture
def pair(
    tiny: Callable[..., dict[str, Any]], randomise: Callable[[nn.Module], nn.Module]
) -> Callable[..., tuple[Any, Any]]:
    """A model of ours and the reference with the same random weights, of class `name`."""

    def make(name: str = "ViTMAEForPreTraining", **fields: Any) -> tuple[Any, Any]:
        import transformers

        import vitmae_search.vitmae as ours

        kind = "ViTMAEConfig" if "MAE" in name else "ViTConfig"
        values = tiny(**fields)
        if kind == "ViTConfig":
            values = {field: value for field, value in values.items() if not field.startswith("decoder_")}
        reference = randomise(getattr(transformers, name)(getattr(transformers, kind)(**values)))
        state, layout = to_hub_names(reference.state_dict())
        files = CheckpointFiles(Path("in memory"))
        checkpoint = Checkpoint(files, getattr(ours, kind)(**values), state, layout)
        return getattr(ours, name).from_checkpoint(checkpoint), reference

    return make


@pytest.fixture(scope="session")
def photos(real_photos: dict[str, Path]) -> dict[str, Image.Image]:
    """Real photos as RGB images."""
    return {name: Image.open(path).convert("RGB") for name, path in real_photos.items()}


@pytest.fixture
def pixels(photos: dict[str, Image.Image]) -> Callable[[int, int], torch.Tensor]:
    """Two real photos as normalised pixels, (2, 3, height, width)."""

    def make(height: int, width: int) -> torch.Tensor:
        arrays: list[NDArray[np.float32]] = [
            np.asarray(photos[name].resize((width, height)), dtype=np.float32) / 64 - 2
            for name in ("astronaut", "china")
        ]
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()

    return make
