"""From a photo to the pixels that the model takes. Runs in worker processes, without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_LONGEST = 16
"""Of a photo that is longer than this many times its width, only the middle part is resized: the crop takes
no more of it, and the whole would need gigabytes."""


@dataclass(frozen=True, slots=True)
class ResizeAndCrop:
    """RGB image to (height, width, 3) uint8, as the image processors of `transformers` resize and crop it.

    Rescaling and normalization are left to the device: the pixels are a quarter of the bytes.

    Attributes:
        size: Height and width to resize to, whatever the photo's shape; or its shorter side, the other one
            following. None: it is not resized.
        crop: Height and width of the middle part that is kept, None for all. What the photo lacks is black.
        resample: The number of Pillow's filter.
    """

    size: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    resample: int

    def __call__(self, image: Image.Image, /) -> NDArray[np.uint8]:
        """The image, resized and cropped."""
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        if self.size is not None:
            if isinstance(self.size, int) and self.crop is not None:
                rgb = _middle(rgb)
            rgb = rgb.resize(self._resized(*rgb.size), Image.Resampling(self.resample))
        pixels = np.array(rgb)
        return pixels if self.crop is None else _center_crop(pixels, *self.crop)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the resized image."""
        if isinstance(self.size, tuple):
            return self.size[1], self.size[0]
        assert self.size is not None
        short, long = self.size, int(self.size * max(width, height) / min(width, height))
        return (short, long) if width <= height else (long, short)


def _middle(image: Image.Image) -> Image.Image:
    width, height = image.size
    longest = _LONGEST * min(width, height)
    if max(width, height) <= longest:
        return image
    left, top = max(0, width - longest) // 2, max(0, height - longest) // 2
    return image.crop((left, top, left + min(width, longest), top + min(height, longest)))


def _center_crop(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    rows, columns = pixels.shape[:2]
    less_rows, less_columns = max(0, height - rows), max(0, width - columns)
    above, before = -(-less_rows // 2), -(-less_columns // 2)
    if less_rows or less_columns:
        sides = ((above, less_rows - above), (before, less_columns - before), (0, 0))
        pixels = np.pad(pixels, sides)
    top, left = (rows - height) // 2 + above, (columns - width) // 2 + before
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])
