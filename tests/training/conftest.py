"""A tiny model, and a folder of real photos cut from the ones that scikit-image and scikit-learn ship."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny_model import TINY_MODEL


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    from skimage import data

    return Image.fromarray(data.astronaut())


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory, photo: Image.Image) -> Path:
    """Twelve JPEGs of 48 × 40 pixels in two folders: pieces of one photo."""
    root = tmp_path_factory.mktemp("photos")
    pixels = np.asarray(photo)
    for i in range(12):
        row, column = divmod(i, 4)
        piece = pixels[row * 160 : row * 160 + 120, column * 120 : column * 120 + 144]
        folder = root / ("first" if i < 6 else "second")
        folder.mkdir(exist_ok=True)
        Image.fromarray(piece).resize((48, 40)).save(folder / f"{i:02d}.jpg", quality=95)
    return root


@pytest.fixture
def tiny_model() -> dict[str, object]:
    return {**TINY_MODEL, "num_hidden_layers": 2, "norm_pix_loss": True}


@pytest.fixture(scope="session")
def coloured_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty PNGs of 24 × 20 pixels in each of three folders: noise with a cast of the folder's colour."""
    root = tmp_path_factory.mktemp("coloured")
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (root / name / "deeper").mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 160, (20, 24, 3))
            pixels[:, :, channel] += 80
            folder = root / name / "deeper" if i % 2 else root / name
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02d}.png")
    return root


@pytest.fixture
def start_model(tiny_model: dict[str, object], tmp_path: Path) -> Path:
    """A ViTMAE's checkpoint whose every weight, positions too, is random, and its processor."""
    from vitmae_search.vitmae import ViTImageProcessor, ViTMAEConfig, ViTMAEForPreTraining

    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = ViTMAEForPreTraining(ViTMAEConfig(**tiny_model))  # type: ignore[arg-type]
        for value in model.state_dict().values():
            value.copy_(value + 0.2 * torch.randn_like(value))
    folder = tmp_path / "start"
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}, resample=3).save_pretrained(folder)
    return folder
