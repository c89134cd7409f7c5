"""Simple features that a model has to beat: raw pixels and a colour histogram."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def raw_pixels(image: Image.Image, side: int = 32, *, grey: bool = False) -> NDArray[np.float32]:
    """The picture at side × side, flattened, less its own mean: (side²·3,), or (side²,) if `grey`.

    Without its mean, because the cosine between raw pictures says little but how bright both are.
    """
    small = image.convert("L" if grey else "RGB").resize((side, side), Image.Resampling.BICUBIC)
    pixels = np.asarray(small, np.float32).reshape(-1)
    centred: NDArray[np.float32] = pixels - pixels.mean()
    return centred


def colour_histogram(image: Image.Image, bins: int = 8) -> NDArray[np.float32]:
    """The square root of the joint RGB histogram, (bins³,): its cosine is the Bhattacharyya coefficient."""
    pixels = np.asarray(image.convert("RGB"), np.int64).reshape(-1, 3) * bins // 256
    codes = (pixels[:, 0] * bins + pixels[:, 1]) * bins + pixels[:, 2]
    counts = np.bincount(codes, minlength=bins**3)
    roots: NDArray[np.float32] = np.sqrt(counts / counts.sum()).astype(np.float32)
    return roots
