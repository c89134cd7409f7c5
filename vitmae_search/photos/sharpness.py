"""How sharp a photo is, by its thumbnail: for choosing among frames of a burst."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def sharpness(thumbnail: bytes) -> float:
    """The variance of the Laplacian of a thumbnail's brightness, ≥ 0; comparable for one motif only.

    0 for what cannot be read.
    """
    try:
        with Image.open(io.BytesIO(thumbnail), formats=["JPEG"]) as image:
            grey = np.asarray(image.convert("L"), np.float32)
    except (OSError, ValueError):
        return 0.0
    if min(grey.shape) < 3:
        return 0.0
    laplacian = grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1] - 4 * grey[1:-1, 1:-1]
    return float(laplacian.var())
