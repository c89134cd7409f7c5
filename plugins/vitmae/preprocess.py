"""From a photo to the pixels that the model takes. Runs in worker processes, without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CROP_FRACTION = 0.8
"""The side of each of the five crops, as a fraction of the photo's."""


@dataclass(frozen=True, slots=True)
class Resize:
    """RGB image to (height, width, 3) uint8, exactly as `ViTImageProcessor` resizes it.

    The whole image is used, whatever its aspect ratio. Rescaling and normalization are left to the device:
    the pixels are a quarter of the bytes.

    Attributes:
        height: Pixels.
        width: Pixels.
        resample: The number of Pillow's filter.
    """

    height: int
    width: int
    resample: int

    def __call__(self, image: Image.Image, /) -> NDArray[np.uint8]:
        """The whole image, resized."""
        return self.resize_box(image, (0, 0, *image.size))

    def resize_box(self, image: Image.Image, box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
        """A part of the image, resized to the same (height, width, 3).

        Args:
            image: RGB.
            box: Left, top, right and bottom in pixels, fractions included.
        """
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        size = self.width, self.height
        return np.array(rgb.resize(size, Image.Resampling(self.resample), box=box))


@dataclass(frozen=True, slots=True)
class FiveCrops:
    """RGB image to (5, height, width, 3) uint8: its four corners and its center.

    Each crop has `CROP_FRACTION` of the image's width and height.
    """

    resize: Resize

    def __call__(self, image: Image.Image, /) -> NDArray[np.uint8]:
        """The five crops, resized."""
        width, height = image.size
        x, y = (1 - CROP_FRACTION) * width, (1 - CROP_FRACTION) * height
        corners = ((0, 0), (x, 0), (0, y), (x, y), (x / 2, y / 2))
        boxes = [(left, top, left + width - x, top + height - y) for left, top in corners]
        return np.stack([self.resize.resize_box(image, box) for box in boxes])
