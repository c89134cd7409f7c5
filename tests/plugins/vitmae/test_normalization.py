"""Bytes become the numbers that the processor makes of them, on any device and in any memory order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plugins.vitmae.networks import split_views
from vitmae_search.vitmae import IMAGENET_MEAN, IMAGENET_STD, ViTImageProcessor
from vitmae_search.vitmae.normalization import normalization_table, pixel_values

PROCESSOR = ViTImageProcessor(image_mean=list(IMAGENET_MEAN), image_std=list(IMAGENET_STD))
PIXELS = np.arange(4 * 8 * 24)
BATCH = np.stack([PIXELS, 7 * PIXELS + 1, 11 * PIXELS + 5], axis=1).astype(np.uint8).reshape(4, 8, 24, 3)
"""Every value in every channel, three times."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_byte_is_the_processor_s_number(device: str, dtype: torch.dtype) -> None:
    assert all(len(np.unique(BATCH[..., channel])) == 256 for channel in range(3))
    expected = torch.from_numpy(
        np.stack([PROCESSOR.rescale_and_normalize(image.transpose(2, 0, 1)) for image in BATCH])
    )
    levels = normalization_table(PROCESSOR).to(device, dtype)
    found = pixel_values(torch.from_numpy(BATCH).to(device), levels)
    assert found.device.type == device
    assert torch.equal(found.cpu(), expected.to(torch.float32).to(dtype))
    assert found.permute(0, 2, 3, 1).is_contiguous()


def test_crops_are_looked_up_as_whole_photos_are(device: str) -> None:
    levels = normalization_table(PROCESSOR).to(device)
    whole = torch.from_numpy(BATCH).to(device)
    crops = torch.stack(
        [whole, whole.flip(0), whole.flip(1)], dim=1
    )  # (N, 3, H, W, 3): not contiguous one by one
    for found, expected in zip(
        split_views(crops, levels, "five"), (whole, whole.flip(0), whole.flip(1)), strict=True
    ):
        assert torch.equal(found, pixel_values(expected, levels))
    plain, mirrored = split_views(whole, levels, "flip")
    assert torch.equal(mirrored, plain.flip(3))
