"""The maps that guess a turned picture's vector."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vitmae_search.embedding import Projection
from vitmae_search.errors import TrainingError
from vitmae_search.training.adaptation import fit_turns


def orientations(count: int = 400) -> dict[int, NDArray[np.float64]]:
    """Vectors of eight numbers that a turn to the left moves on by two, with some noise."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(count, 8)) * [1, 2, 3, 4, 5, 6, 7, 8]
    moved = {
        angle: np.roll(rows, angle // 45, axis=1) + 0.1 * random.normal(size=rows.shape) for angle in ANGLES
    }
    return {angle: own / np.linalg.norm(own, axis=1, keepdims=True) for angle, own in moved.items()}


ANGLES = (0, 90, 180, 270)


@pytest.mark.parametrize("known", [ANGLES, (0, 90, 270)])
def test_turned_vectors_are_guessed(known: tuple[int, ...]) -> None:
    vectors = orientations()
    maps = fit_turns({angle: vectors[angle][:300] for angle in known})
    projection = Projection([np.eye(8)], [np.zeros(8)], "head", turns=maps)
    guessed = projection.guess_turned(vectors[0][300:].astype(np.float32))
    assert guessed is not None
    for angle, own in zip((90, 180, 270), guessed, strict=True):
        assert np.sum(own * vectors[angle][300:], axis=1).min() > 0.97


def test_turns_need_photos_turned_both_ways() -> None:
    vectors = orientations(5)
    with pytest.raises(TrainingError, match="turned by 90 and by 270°"):
        fit_turns({angle: vectors[angle] for angle in (0, 90, 180)})
