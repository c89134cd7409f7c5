"""Random training views: deterministic, for any image, and different each time."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vitmae_search.training.adaptation.views import _AUGMENTATIONS, training_view


def test_view_0_is_the_unchanged_photo(photo: Image.Image) -> None:
    same = training_view(photo, seed=3, photo=5, view=0)
    assert same is not photo
    assert same.tobytes() == photo.tobytes()


def test_equal_numbers_give_equal_pictures_and_each_number_counts(photo: Image.Image) -> None:
    photo = photo.reduce(4)
    before = photo.tobytes()
    numbers = [(0, 0, 1), (0, 0, 2), (0, 1, 1), (1, 0, 1)]
    for _ in range(2):
        views = [training_view(photo, seed=s, photo=p, view=v) for s, p, v in numbers]
    again = [training_view(photo, seed=s, photo=p, view=v) for s, p, v in numbers]
    assert [view.tobytes() for view in views] == [view.tobytes() for view in again]
    assert len({view.tobytes() for view in views}) == 4
    assert photo.tobytes() == before


def test_strengths_vary(photo: Image.Image) -> None:
    small = photo.reduce(8)
    sizes = [training_view(small, seed=0, photo=0, view=view).size for view in range(1, 101)]
    areas = [width * height / (small.width * small.height) for width, height in sizes]
    assert min(areas) < 0.2
    assert max(areas) > 1.5  # a screen around a picture is larger


def test_every_kind_of_change_is_drawn_with_random_strength(photo: Image.Image) -> None:
    small = photo.reduce(8)
    for _, augmentation in _AUGMENTATIONS:
        made = {augmentation(small, np.random.default_rng(seed)).tobytes() for seed in range(12)}
        assert len(made) >= (1 if augmentation.__name__ in ("_mirror", "_grey") else 3)
        assert made != {small.tobytes()}


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (3, 2)])
def test_pictures_of_any_size_come_out_as_rgb(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (200, 80, 10))
    for view in range(60):
        made = training_view(image, seed=0, photo=0, view=view)
        assert made.mode == "RGB"
        assert min(made.size) > 0
