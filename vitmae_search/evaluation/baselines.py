"""Simple features that a model has to beat: raw pixels, a color histogram, and a perceptual hash."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def raw_pixels(image: Image.Image, side: int = 32, *, grey: bool = False) -> NDArray[np.float32]:
    """The picture's pixels at a small size, less their mean.

    The cosine between pictures with their mean says little but how bright both are.

    Args:
        image: The picture.
        side: Its side after scaling, in pixels.
        grey: One channel in place of three.

    Returns:
        (side²·3,) float32, or (side²,) if `grey`.
    """
    small = image.convert("L" if grey else "RGB").resize((side, side), Image.Resampling.BICUBIC)
    pixels = np.asarray(small, np.float32).reshape(-1)
    centred: NDArray[np.float32] = pixels - pixels.mean()
    return centred


def color_histogram(image: Image.Image, bins: int = 8) -> NDArray[np.float32]:
    """The square root of the joint RGB histogram: the cosine of two is the Bhattacharyya coefficient.

    Args:
        image: The picture.
        bins: Bins of each channel.

    Returns:
        (bins³,) float32 of unit length.
    """
    pixels = np.asarray(image.convert("RGB"), np.int64).reshape(-1, 3) * bins // 256
    codes = (pixels[:, 0] * bins + pixels[:, 1]) * bins + pixels[:, 2]
    counts = np.bincount(codes, minlength=bins**3)
    roots: NDArray[np.float32] = np.sqrt(counts / counts.sum()).astype(np.float32)
    return roots


def perceptual_hash(image: Image.Image) -> NDArray[np.float32]:
    """The bits of pHash as ±1, (64,): where h bits differ the cosine is 1 − 2·h/64, so it ranks as Hamming.

    The grey picture at 32 × 32, its cosine transform, and whether each of the 8 × 8 lowest frequencies is
    above their median (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010).
    """
    small = image.convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    frequencies = _COSINES @ np.asarray(small, np.float64) @ _COSINES.T
    bits: NDArray[np.float32] = np.where(frequencies > np.median(frequencies), 1, -1).astype(np.float32)
    return bits.reshape(-1)


_COSINES = np.cos(np.pi * np.outer(np.arange(8), 2 * np.arange(32) + 1) / 64)
"""(frequency, place): the DCT-II without its scale, as in the hash's common implementations."""
