"""int8: the ranges within which the inputs of an encoder's linear maps are rounded.

They are measured on synthetic pictures. Ranges of nobody's photos make a model one space in int8, on every
machine; and those of some photos are too narrow for others, whose colors or contrasts are stronger.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vitmae_search.errors import PluginOptionError
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEModel, pool

from .options import NAME

REVISION = 1
"""Increased whenever the same model would round to other vectors; part of a space's identity."""
_PICTURES, _PART = 64, 16
_MAX_STEEPNESS = 2.5
"""Amplitudes fall with this power of the frequency at most; in photos it is about the first power."""

_LOWEST_COSINE = 0.99
"""Of a picture's mean token to fp32's; the bundled model's are above 0.999."""

Range = tuple[float, float]
Encode = Callable[..., tuple[Tensor, ...]]
"""`ViTMAEModel.encode`, or another that does the same."""


def calibration_images(processor: ViTImageProcessor) -> NDArray[np.uint8]:
    """Noise with the spectra, contrasts and colors of photos: (64, H, W, 3).

    Args:
        processor: Gives the size.
    """
    height, width = processor.height_width
    random = np.random.default_rng(0)
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequencies = np.maximum(frequencies, 1 / max(height, width))
    images = np.empty((_PICTURES, height, width, 3), np.uint8)
    for image in images:
        amplitudes = frequencies ** -random.uniform(0, _MAX_STEEPNESS)
        noise = np.fft.rfft2(random.standard_normal((3, height, width)))
        channels = np.fft.irfft2(noise * amplitudes, s=(height, width))
        channels /= channels.std()
        mixed = np.tensordot(random.uniform(0, 1) + random.uniform(0, 1) * np.eye(3), channels, axes=1)
        contrast, brightness = random.uniform(5, 120), random.uniform(20, 235, size=(3, 1, 1))
        values = mixed / mixed.std() * contrast + brightness
        image[:] = values.clip(0, 255).transpose(1, 2, 0)
    return images


@dataclass(frozen=True, slots=True)
class Quantization:
    """Measures ranges, and what a model loses by rounding.

    Attributes:
        processor: The model's.
    """

    processor: ViTImageProcessor

    def input_ranges(self, encoder: ViTMAEModel) -> dict[str, Range]:
        """The lowest and highest input of each linear map, by its name.

        Args:
            encoder: In fp32.
        """
        ranges: dict[str, Range] = {}

        def measure(name: str) -> Callable[..., None]:
            def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
                lowest, highest = (float(value) for value in torch.aminmax(inputs[0]))
                before = ranges.get(name, (0.0, 0.0))
                ranges[name] = (min(before[0], lowest), max(before[1], highest))

            return hook

        with ExitStack() as hooks, torch.inference_mode():
            for name, module in encoder.named_modules():
                if isinstance(module, nn.Linear):
                    hooks.callback(module.register_forward_pre_hook(measure(name)).remove)
            last = (encoder.config.num_hidden_layers,)
            for pixels in torch.split(self._pixel_values(), _PART):
                encoder.encode(pixels, last, interpolate_pos_encoding=True)
        return ranges

    def check(self, exact: Encode, rounded: Encode, layers: tuple[int, ...]) -> None:
        """Compare what two encoders make of some pictures.

        Args:
            exact: In fp32.
            rounded: In int8.
            layers: The layers that are used.

        Raises:
            PluginOptionError: The rounded one gives other vectors.
        """
        pixels = self._pixel_values()[:_PART]
        with torch.inference_mode():
            pairs = zip(
                exact(pixels, layers, interpolate_pos_encoding=True), rounded(pixels, layers), strict=True
            )
            cosines = [functional.cosine_similarity(pool(a, "mean"), pool(b, "mean")).min() for a, b in pairs]
        lowest = float(min(cosines))
        if not lowest >= _LOWEST_COSINE:  # written this way, NaN is refused too
            rule = (
                f"this model loses too much in int8 (cosines as low as {lowest:.3f}); use another precision"
            )
            raise PluginOptionError(NAME, f"quantization=int8: {rule}")

    def _pixel_values(self) -> Tensor:
        images = calibration_images(self.processor)
        return torch.from_numpy(self.processor.rescale_and_normalize(images.transpose(0, 3, 1, 2)))
