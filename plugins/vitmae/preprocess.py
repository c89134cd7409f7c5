"""From a photo to the pixels that the model looks at. Runs in worker processes, without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CROP = 0.8
"""The side of each of the five crops, as a share of the photo's."""


@dataclass(frozen=True, slots=True)
class Resize:
    """RGB image to (height, width, 3) uint8, exactly as `ViTImageProcessor` resizes it.

    The whole picture, whatever its aspect. `resample` is the number of Pillow's filter. Rescaling and
    normalisation wait for the device: a quarter of the bytes has to be carried there.
    """

    height: int
    width: int
    resample: int

    def __call__(self, image: Image.Image, /) -> NDArray[np.uint8]:
        return self.part(image, (0, 0, *image.size))

    def part(self, image: Image.Image, box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
        """The same of what lies in `box`: left, top, right and bottom in pixels, fractions too."""
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        size = self.width, self.height
        return np.array(rgb.resize(size, Image.Resampling(self.resample), box=box))


@dataclass(frozen=True, slots=True)
class FiveCrops:
    """RGB image to (5, height, width, 3) uint8: the four corners and the middle, each `CROP` of the side."""

    resize: Resize

    def __call__(self, image: Image.Image, /) -> NDArray[np.uint8]:
        width, height = image.size
        x, y = (1 - CROP) * width, (1 - CROP) * height
        places = ((0, 0), (x, 0), (0, y), (x, y), (x / 2, y / 2))
        boxes = [(left, top, left + width - x, top + height - y) for left, top in places]
        return np.stack([self.resize.part(image, box) for box in boxes])
