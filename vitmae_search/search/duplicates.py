"""Near-duplicates among many vectors: which are connected by high scores, and how they fall into groups.

Scores are computed block by block, and a forest of links is all that is kept of them (union-find), so memory
grows with the number of vectors and not with its square.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]

_BLOCK = 2048
"""Vectors that are compared at once: their scores are 16 MiB."""


def connected(
    vectors: NDArray[np.float32], scores: Sequence[float], cancelled: Callable[[], bool] = lambda: False
) -> list[Labels]:
    """Find what is connected: pairs with at least a score, pairs of those pairs, and so on.

    Args:
        vectors: (N, D), of unit length.
        scores: The least scores of a pair; each gives an answer of its own, and all take the time of one.
        cancelled: Asked at each block; once it returns True the rest is left out.

    Returns:
        For each score (N,) int64: the first row that a row is connected with, itself where there is none.
    """
    forests = [np.arange(len(vectors)) for _ in scores]
    lowest = min(scores, default=1.0)
    for start in range(0, len(vectors), _BLOCK):
        for other in range(start, len(vectors), _BLOCK):
            if cancelled():
                return forests
            found = vectors[start : start + _BLOCK] @ vectors[other : other + _BLOCK].T
            first, second = np.nonzero(found >= lowest)
            later = first + start < second + other
            first, second = first[later], second[later]
            values = found[first, second]
            for forest, score in zip(forests, scores, strict=True):
                enough = values >= score
                _unite(forest, first[enough] + start, second[enough] + other)
        for forest in forests:
            forest[:] = _roots(forest, forest)
    return forests


def _unite(forest: Labels, first: Labels, second: Labels) -> None:
    """Link the trees of each pair; a root is the first row of its tree."""
    while len(first):
        first, second = _roots(forest, first), _roots(forest, second)
        apart = first != second
        first, second = first[apart], second[apart]
        # Of several links of one root the lowest is made; the others are looked at again.
        np.minimum.at(forest, np.maximum(first, second), np.minimum(first, second))


def _roots(forest: Labels, rows: Labels) -> Labels:
    while True:
        above = forest[rows]
        if np.array_equal(above, rows):
            return rows
        rows = above


def members(labels: Labels) -> list[Labels]:
    """The rows of each tree of two or more, in order."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    return [rows for rows in np.split(order, starts[1:]) if len(rows) > 1]


def groups_around_best(
    vectors: NDArray[np.float32], score: float, apart: Mapping[int, Set[int]]
) -> list[list[tuple[int, float]]]:
    """Put what is connected into groups, each of which is near its first member.

    Connected photos may be a chain whose ends have nothing in common. So the best one takes all that have at
    least the score with it, then the best of the rest does, and so on.

    Args:
        vectors: (n, D), of unit length: what is connected, best first.
        score: The least score with the first member.
        apart: For a row the rows that do not belong into a group with it.

    Returns:
        Groups of two or more: rows with their scores with the first, in the order of the rows.
    """
    left = np.arange(len(vectors))
    groups = []
    while len(left) > 1:
        best, rest = int(left[0]), left[1:]
        found = vectors[rest] @ vectors[best]
        near = found >= score
        near &= ~np.isin(rest, list(apart.get(best, ())))
        if near.any():
            rows, values = rest[near].tolist(), found[near].tolist()
            groups.append([(best, 1.0), *zip(rows, values, strict=True)])
        left = rest[~near]
    return groups
