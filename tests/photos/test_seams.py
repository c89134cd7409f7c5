"""Seams between guesses are softened, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from vitmae_search.photos.seams import soften_seams
from vitmae_search.records import Reconstruction


def reconstruction(pasted: np.ndarray, mask: np.ndarray) -> Reconstruction:
    return Reconstruction(
        pasted, pasted, pasted, pasted, mask, np.zeros(mask.shape, np.float32), 0.0, 0.5, "none"
    )


def checkers(rows: int, columns: int, patch: int = 8) -> np.ndarray:
    """Patches of 100 and 200 in turns."""
    parity = np.indices((rows, columns)).sum(0) % 2
    return np.kron(100 + 100 * parity, np.ones((patch, patch)))[..., None].repeat(3, 2).astype(np.uint8)


def test_a_step_between_two_guesses_becomes_a_slope() -> None:
    made = reconstruction(checkers(1, 2), np.array([[True, True]]))
    row = soften_seams(made)[4, :, 0].astype(int)
    assert (row[:4] == 100).sum() == 4, "up to the middle of a patch it is the guess itself"
    assert (row[12:] == 200).sum() == 4
    assert (np.diff(row) >= 0).all()
    assert np.diff(row).max() < 25, "a step of 100 before"


def test_rows_and_columns_are_treated_alike() -> None:
    upright = soften_seams(reconstruction(checkers(2, 1), np.array([[True], [True]])))
    lying = soften_seams(reconstruction(checkers(1, 2), np.array([[True, True]])))
    assert (upright == lying.transpose(1, 0, 2)).all()


@pytest.mark.parametrize("seed", range(5))
def test_visible_pixels_and_their_seams_stay(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pasted = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    mask = rng.random((5, 6)) < 0.6
    softened = soften_seams(reconstruction(pasted, mask))
    hidden = np.kron(mask, np.ones((8, 8))) > 0
    assert (softened[~hidden] == pasted[~hidden]).all()
    alone = np.zeros((5, 6), bool)
    alone[2, 3] = True
    assert (soften_seams(reconstruction(pasted, alone)) == pasted).all()


def test_neighbouring_guesses_that_agree_stay_as_they_are() -> None:
    flat = np.full((16, 16, 3), 77, np.uint8)
    assert (soften_seams(reconstruction(flat, np.ones((2, 2), bool))) == flat).all()
