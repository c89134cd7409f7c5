"""Whole photos become the processor's pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vitmae_search.training.data.normalize import Normalize
from vitmae_search.training.data.random_resized_crop import resize_crops
from vitmae_search.training.finetuning.task import full_frame_crops
from vitmae_search.vitmae import ViTImageProcessor


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"do_normalize": False},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5, "image_mean": (1, 1, 1), "image_std": (1, 1, 1)},
        {"image_mean": (0.4, 0.5, 0.6), "image_std": (0.2, 0.3, 0.25)},
    ],
)
def test_whole_photos_become_the_processors_own_pixels(fields: dict[str, object]) -> None:
    processor = ViTImageProcessor(size=16, **fields)  # type: ignore[arg-type]
    stored = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    expected = processor([Image.fromarray(image) for image in stored], return_tensors="pt")["pixel_values"]
    ours = Normalize.from_processor(processor)(
        resize_crops(torch.from_numpy(stored), full_frame_crops(2, 16, 16), 16)
    )
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
