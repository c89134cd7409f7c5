"""Images to try a plugin on, made from fixed seeds."""

from __future__ import annotations

import numpy as np
from PIL import Image

ODD_SIZES = ((1, 1), (1, 37), (53, 1), (2, 2), (2000, 3), (3, 1500), (31, 17), (640, 480))
"""Width and height in pixels of images that occur in photo folders, and that a plugin must accept."""

_SAMPLE_SIZES = ((96, 64), (64, 96), (80, 80), (200, 150), (33, 47), (128, 128), (70, 300), (256, 90))


def sample_images() -> list[Image.Image]:
    """Eight RGB images of different sizes, clearly unlike each other: smooth colours under fine grain."""
    return [_image(size, seed) for seed, size in enumerate(_SAMPLE_SIZES)]


def odd_images() -> list[Image.Image]:
    """One RGB image of each of `ODD_SIZES`."""
    return [_image(size, seed) for seed, size in enumerate(ODD_SIZES, start=100)]


def flat_images() -> list[Image.Image]:
    """Black, white, gray and red images: blank pages and covered lenses occur in photo folders too."""
    return [Image.new("RGB", (48, 32), color) for color in ("black", "white", "gray", "red")]


def _image(size: tuple[int, int], seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(np.int64)
    grain = random.integers(-12, 13, smooth.shape)
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))
