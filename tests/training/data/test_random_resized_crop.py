"""Batched crops equal Pillow's, and boxes follow the recipe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vitmae_search.training.data.random_resized_crop import Crops, random_crops, resize_crops


def crops(boxes: list[tuple[int, int, int, int]], flipped: list[bool]) -> Crops:
    columns = torch.tensor(boxes).T
    return Crops(*columns, torch.tensor(flipped))


@pytest.mark.parametrize("size", [24, 64])
def test_each_image_is_cropped_and_resized_as_pillow_does(photo: Image.Image, size: int) -> None:
    images = [photo.crop((x, y, x + 60, y + 52)) for x, y in ((0, 0), (180, 20), (250, 300), (100, 60))]
    boxes = [(0, 0, 52, 60), (3, 7, 20, 31), (40, 2, 12, 50), (10, 10, 33, 8)]  # top, left, height, width
    flipped = [False, True, False, True]
    batch = torch.from_numpy(np.stack([np.asarray(image) for image in images]))

    ours = resize_crops(batch, crops(boxes, flipped), size)

    for i, (image, (top, left, height, width), flip) in enumerate(zip(images, boxes, flipped, strict=True)):
        expected = image.crop((left, top, left + width, top + height))
        expected = expected.resize((size, size), Image.Resampling.BICUBIC)
        if flip:
            expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        difference = np.abs(ours[i].permute(1, 2, 0).numpy() - np.asarray(expected, np.float32))
        assert difference.max() <= 8.0  # Pillow rounds and clips to whole levels between its two passes
        assert difference.mean() < 0.5


def test_a_full_crop_at_the_same_size_is_the_identity(photo: Image.Image) -> None:
    image = torch.from_numpy(np.array(photo.crop((0, 0, 32, 32))))[None]
    same = resize_crops(image, crops([(0, 0, 32, 32)], [False]), 32)
    torch.testing.assert_close(same[0].permute(1, 2, 0), image[0].float(), atol=1e-3, rtol=0)


def test_pixels_outside_the_box_have_no_weight() -> None:
    image = torch.full((1, 40, 40, 3), 255, dtype=torch.uint8)
    image[:, 10:30, 10:30] = 7
    inside = resize_crops(image, crops([(10, 10, 20, 20)], [False]), 16)
    assert inside.min() == pytest.approx(7, abs=1e-3)
    assert inside.max() == pytest.approx(7, abs=1e-3)


def test_boxes_stay_inside_and_cover_the_recipes_range() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = random_crops(4000, 64, 80, scale=(0.2, 1.0), flip=True, generator=generator)
    assert bool((drawn.top >= 0).all())
    assert bool((drawn.left >= 0).all())
    assert bool((drawn.top + drawn.height <= 64).all())
    assert bool((drawn.left + drawn.width <= 80).all())
    area = (drawn.height * drawn.width) / (64 * 80)
    aspect = drawn.width / drawn.height
    assert 0.18 < float(area.min()) < 0.22
    assert float(area.max()) > 0.9
    assert float(aspect[area < 1].min()) > 0.70
    assert float(aspect[area < 1].max()) < 1.40
    assert 0.45 < float(drawn.flipped.float().mean()) < 0.55
    assert bool((drawn.top + drawn.height == 64).any())  # the last row is reachable


def test_no_flip_means_none_and_equal_seeds_draw_alike() -> None:
    first, second = (
        random_crops(50, 32, 32, scale=(0.5, 1), flip=False, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    assert not bool(first.flipped.any())
    assert torch.equal(first.top, second.top)
    assert torch.equal(first.width, second.width)


def test_an_image_that_no_box_fits_is_used_whole() -> None:
    drawn = random_crops(5, 4, 400, scale=(0.9, 1.0), flip=False, generator=torch.Generator().manual_seed(0))
    assert drawn.height.tolist() == [4] * 5
    assert drawn.width.tolist() == [400] * 5
