"""From a photo to the pixels that the model looks at. Runs in worker processes, without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


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
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        return np.array(rgb.resize((self.width, self.height), Image.Resampling(self.resample)))
