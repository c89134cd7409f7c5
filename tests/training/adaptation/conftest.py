"""Real features: small views of real photos, as pixels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.evaluation import raw_pixels, unit_rows
from vitmae_search.training.adaptation.views import training_view


@pytest.fixture(scope="session")
def pieces(photo: Image.Image) -> list[Image.Image]:
    """225 overlapping pieces of 48 × 48 pixels of one photo."""
    places = [(x, y) for y in range(0, 450, 30) for x in range(0, 450, 30)]
    return [photo.crop((x, y, x + 48, y + 48)) for x, y in places]


@pytest.fixture(scope="session")
def features(pieces: list[Image.Image]) -> NDArray[np.float32]:
    """(225, 48) float32, unit rows."""
    return unit_rows(np.stack([raw_pixels(piece, 4) for piece in pieces]))


@pytest.fixture(scope="session")
def views(pieces: list[Image.Image]) -> NDArray[np.float32]:
    """(225, 5, 48) float32: random views of the pieces, unit rows."""
    rows = [
        raw_pixels(training_view(piece, seed=0, photo=i, view=view), 4)
        for i, piece in enumerate(pieces)
        for view in range(5)
    ]
    return unit_rows(np.stack(rows)).reshape(len(pieces), 5, 48)
