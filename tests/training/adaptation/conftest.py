"""Real features: small views of real photos, as pixels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.evaluation import raw_pixels, unit_rows
from vitmae_search.photos.views import tone


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
    """(225, 5, 48) float32: the pieces, and four random views of each that so few pixels can tell apart."""
    random = np.random.default_rng(0)
    rows = [
        raw_pixels(one, 4) for piece in pieces for one in (piece, *(_view(piece, random) for _ in range(4)))
    ]
    return unit_rows(np.stack(rows)).reshape(len(pieces), 5, 48)


def _view(piece: Image.Image, random: np.random.Generator) -> Image.Image:
    """A crop of 56 to 100 % of the area in other tones, half of them mirrored."""
    side = int(random.integers(36, 49))
    left, top = random.integers(0, 49 - side, 2)
    crop = piece.crop((left, top, left + side, top + side))
    if random.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    brightness, contrast, saturation = random.uniform(0.6, 1.4, 3)
    return tone(crop, brightness=brightness, contrast=contrast, saturation=saturation)
