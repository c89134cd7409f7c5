"""How near each vector's nearest neighbours are, block by block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1024


def neighbour_scores(
    vectors: NDArray[np.float32], neighbours: int, cancelled: Callable[[], bool] = lambda: False
) -> NDArray[np.float32]:
    """The mean score of each vector with its nearest others.

    Args:
        vectors: (N, D), of unit length.
        neighbours: How many others, 1 or more; all there are where they are fewer.
        cancelled: Asked at each block; once it returns True the rest is 1.

    Returns:
        (N,) float32, -1 to 1; 1 for a vector that is alone.
    """
    count = len(vectors)
    neighbours = min(neighbours, count - 1)
    means = np.ones(count, np.float32)
    if neighbours < 1:
        return means
    for start in range(0, count, _BLOCK):
        if cancelled():
            break
        some = vectors[start : start + _BLOCK]
        best = np.full((len(some), neighbours), -np.inf, np.float32)
        for other in range(0, count, _BLOCK):
            scores = some @ vectors[other : other + _BLOCK].T
            if other == start:
                np.fill_diagonal(scores, -np.inf)
            both = np.concatenate([best, scores], axis=1)
            best = np.partition(both, -neighbours, axis=1)[:, -neighbours:]
        means[start : start + _BLOCK] = best.mean(axis=1)
    return means
