"""The error map: each patch in the color of its error."""

from __future__ import annotations

import numpy as np
import pytest

from vitmae_search.photos.error_map import error_map, heat, largest_error
from vitmae_search.records import Reconstruction


def reconstruction(mask: np.ndarray, error: np.ndarray, patch: int = 4) -> Reconstruction:
    height, width = mask.shape[0] * patch, mask.shape[1] * patch
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    loss = float(error[mask].mean()) if mask.any() else None
    return Reconstruction(picture, picture, picture, picture, mask, error, loss, float(mask.mean()), "none")


MASK = np.array([[True, False, True], [False, True, True]])
ERROR = np.array([[0.0, 9.0, 1.0], [9.0, 2.0, 4.0]], np.float32)


def test_the_map_is_patchwise_as_large_as_the_picture_and_brighter_is_worse() -> None:
    made = reconstruction(MASK, ERROR)
    panel = error_map(made)
    assert panel.shape == made.original.shape
    assert panel.dtype == np.uint8
    patches = panel.reshape(2, 4, 3, 4, 3)
    assert (patches == patches[:, :1, :, :1]).all()
    light = patches[:, 0, :, 0].astype(int).sum(-1)
    assert light[0, 0] < light[0, 2] < light[1, 1] < light[1, 2]


def test_visible_patches_are_grey_and_do_not_set_the_scale() -> None:
    made = reconstruction(MASK, ERROR)
    assert largest_error(made) == 4.0
    patches = error_map(made).reshape(2, 4, 3, 4, 3)[:, 0, :, 0]
    assert (patches[~MASK] == 128).all()
    assert (patches[1, 2] == heat(np.array(1.0))).all()


@pytest.mark.parametrize("mask", [np.zeros((2, 3), bool), np.ones((2, 3), bool)])
def test_nothing_hidden_or_no_error_is_drawn_without_dividing_by_zero(mask: np.ndarray) -> None:
    made = reconstruction(mask, np.zeros((2, 3), np.float32))
    assert largest_error(made) == 0.0
    assert error_map(made).shape == made.original.shape
