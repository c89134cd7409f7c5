"""Simple features that a model has to beat: raw pixels, a colour histogram, and a perceptual hash."""

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


def perceptual_hash(image: Image.Image) -> NDArray[np.float32]:
    """pHash as ±1, (64,): the cosine of two is 1 − 2·h/64 where h bits differ, so it ranks as Hamming does.

    The grey picture at 32 × 32, its cosine transform, and whether each of the 8 × 8 lowest frequencies is
    above their median (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010).
    """
    small = image.convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    frequencies = _COSINES @ np.asarray(small, np.float64) @ _COSINES.T
    bits: NDArray[np.float32] = np.where(frequencies > np.median(frequencies), 1, -1).astype(np.float32)
    return bits.reshape(-1)


_COSINES = np.cos(np.pi * np.outer(np.arange(8), 2 * np.arange(32) + 1) / 64)
"""(frequency, place): the DCT-II without its scale, as in the hash's common implementations."""
