"""Normalization on the device: bytes of pixels to the values that a model takes, by a table."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vitmae_search.vitmae.image_processor import ViTImageProcessor


def normalization_table(processor: ViTImageProcessor) -> Tensor:
    """(3, 256) float32: the normalised value of each of the 256 values of each channel, bit for bit."""
    values = np.broadcast_to(np.arange(256, dtype=np.uint8), (3, 1, 256))
    return torch.from_numpy(processor.rescale_and_normalize(values).reshape(3, 256).astype(np.float32))


def pixel_values(batch: Tensor, levels: Tensor) -> Tensor:
    """Normalise bytes with a lookup table.

    Args:
        batch: (N, H, W, 3) uint8.
        levels: (3, 256), as of `normalization_table`.

    Returns:
        (N, 3, H, W) of the table's dtype, in channels-last memory format.
    """
    offsets = torch.arange(0, levels.numel(), 256, dtype=torch.int32, device=levels.device)
    found = levels.flatten().index_select(0, (batch + offsets).flatten())
    return found.view(batch.shape).permute(0, 3, 1, 2)
