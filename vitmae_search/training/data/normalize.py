"""Channel-wise normalisation of batches on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vitmae_search.vitmae import ViTImageProcessor


class Normalize:
    """Subtracts the mean and divides by the standard deviation of each channel.

    Args:
        mean: One value for each channel, of pixels scaled to 0 to 1.
        std: Likewise.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self._mean = torch.tensor(mean).view(-1, 1, 1) * 255
        self._std = torch.tensor(std).view(-1, 1, 1) * 255

    @classmethod
    def from_processor(cls, processor: ViTImageProcessor) -> Normalize:
        """What the processor does to 8-bit pixels after resizing, with those of its steps that are on."""
        factor = processor.rescale_factor * 255 if processor.do_rescale else 255.0
        mean = processor.image_mean if processor.do_normalize else (0.0, 0.0, 0.0)
        std = processor.image_std if processor.do_normalize else (1.0, 1.0, 1.0)
        assert not isinstance(mean, float)
        assert not isinstance(std, float)
        return cls(tuple(m / factor for m in mean), tuple(s / factor for s in std))

    def __call__(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) float32 in 0 to 255 to the normalised values."""
        if self._mean.device != pixels.device:  # kept there: a copy to a GPU at each call would wait for it
            self._mean, self._std = self._mean.to(pixels.device), self._std.to(pixels.device)
        return (pixels - self._mean) / self._std
