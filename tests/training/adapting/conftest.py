"""Real features: small views of real photos, as pixels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.evaluation import raw_pixels, unit_rows


@pytest.fixture(scope="session")
def pieces(photo: Image.Image) -> list[Image.Image]:
    """400 overlapping pieces of 64 × 64 pixels of one photo."""
    places = [(x, y) for y in range(0, 440, 22) for x in range(0, 440, 22)]
    return [photo.crop((x, y, x + 64, y + 64)) for x, y in places]


@pytest.fixture(scope="session")
def features(pieces: list[Image.Image]) -> NDArray[np.float32]:
    """(400, 48) float32, unit rows."""
    return unit_rows(np.stack([raw_pixels(piece, 4) for piece in pieces]))
