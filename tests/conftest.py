"""What all tests share: real photos, and a process that finds nothing of the person's own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SKIMAGE = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "camera.png", "coins.png", "moon.png")
SKLEARN = ("china.jpg", "flower.jpg")


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@pytest.fixture(scope="session")
def real_photos() -> dict[str, Path]:
    """Real photos by name, as scikit-image and scikit-learn ship them."""
    folders = [(_package_folder("skimage") / "data", SKIMAGE)]
    folders += [(_package_folder("sklearn") / "datasets/images", SKLEARN)]
    return {Path(name).stem: folder / name for folder, names in folders for name in names}


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees, or touches, the library, plugins and hub cache of whoever runs it."""
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "default-library"))
    monkeypatch.setenv("VITMAE_SEARCH_PLUGINS", str(tmp_path / "no-plugins"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("VITMAE_SEARCH_ALLOWED_HOSTS", raising=False)
    monkeypatch.delenv("VITMAE_SEARCH_DEVICE", raising=False)


@pytest.fixture
def write_photo() -> Callable[[Path, int], Path]:
    """Write a small JPEG whose content depends on the seed alone, and return its path."""

    def write(path: Path, seed: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((96, 72), Image.Resampling.BICUBIC).save(path, "JPEG", quality=92)
        return path

    return write
