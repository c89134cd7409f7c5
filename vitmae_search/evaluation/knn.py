"""k nearest neighbours: how often they share a label. Leave-one-out, exact, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CHUNK = 256  # queries searched at a time


@dataclass(frozen=True, slots=True, eq=False)
class NeighbourScores:
    """One value for each photo that has another one of its class, so that intervals can be taken over photos.

    All are (Q,) float64 from 0 to 1: `first` whether the nearest neighbour has the photo's label (P@1),
    `precision` the share of the first `k` that have it, `average_precision` over the first `depth`, and
    `correct` whether the vote of the first `votes` names it.
    """

    first: NDArray[np.float64]
    precision: NDArray[np.float64]
    average_precision: NDArray[np.float64]
    correct: NDArray[np.float64]


def neighbours(vectors: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The most similar other rows of each row, best first.

    A row is never its own neighbour, but its exact copies are. Equal cosines come in the order of the rows.

    Args:
        vectors: (N, D), of any length; a row of zeros has cosine 0 to all.
        k: Neighbours of each row, 0 < k < N.

    Returns:
        Row numbers (N, k) and cosines (N, k).

    Raises:
        ValueError: k is out of range.
    """
    count = len(vectors)
    if not 0 < k < count:
        raise ValueError(f"k={k} neighbours need more than {k} rows; there are {count}")
    unit = unit_rows(vectors)
    ids = np.empty((count, k), np.int64)
    scores = np.empty((count, k), np.float32)
    for start in range(0, count, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, count))
        cosines = unit[rows] @ unit.T
        cosines[np.arange(len(rows)), rows] = -np.inf
        ids[rows] = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        scores[rows] = np.take_along_axis(cosines, ids[rows], axis=1)
    return ids, scores


def score_neighbours(
    vectors: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    k: int = 10,
    votes: int = 20,
    depth: int = 100,
) -> NeighbourScores:
    """How well the neighbours of each photo share its label, leaving the photo itself out.

    - Queries are the photos that are not alone in their class. Where there are fewer other photos than `k`,
      `votes` or `depth`, all of them count.
    - Average precision is that of the Google Landmarks benchmarks, mAP@100: the sum of the precisions at each
      right neighbour among the first `depth`, divided by the number of right ones that there could be.
    - In the vote a neighbour's weight is its cosine minus that of the farthest voter. So there is no
      temperature to choose, and the scale of the cosines does not matter. Of labels with equal sums, that of
      the nearest neighbour wins.

    Args:
        vectors: (N, D), of any length.
        labels: (N,) integers from 0.
        k: Neighbours for the precision.
        votes: Neighbours that vote.
        depth: Neighbours for the average precision.

    Raises:
        ValueError: No two photos share a label, or the shapes do not fit.
    """
    if labels.shape != (len(vectors),):
        raise ValueError(f"labels must be ({len(vectors)},), not {labels.shape}")
    others = np.bincount(labels)[labels] - 1
    queries = np.flatnonzero(others)
    if not len(queries):
        raise ValueError("no two photos share a label")
    ids, scores = neighbours(vectors, min(max(k, votes, depth), len(vectors) - 1))
    found, scores, own = labels[ids[queries]], scores[queries], labels[queries]
    right = found == own[:, None]
    return NeighbourScores(
        first=right[:, 0].astype(np.float64),
        precision=right[:, :k].mean(axis=1),
        average_precision=_average_precision(right[:, :depth], others[queries]),
        correct=(vote(found[:, :votes], scores[:, :votes]) == own).astype(np.float64),
    )


def _average_precision(right: NDArray[np.bool_], relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """(Q, depth) whether each neighbour is right, and how many right ones there are (Q,), to (Q,)."""
    ranks = np.arange(1, right.shape[1] + 1)
    precisions = np.cumsum(right, axis=1) / ranks
    possible = np.minimum(relevant, right.shape[1])
    result: NDArray[np.float64] = (precisions * right).sum(axis=1) / possible
    return result


def vote(labels: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """The label that wins each row's vote.

    Args:
        labels: (N, votes), of the neighbours, best first.
        scores: (N, votes), their cosines.

    Returns:
        (N,).
    """
    floor = scores[:, -1:]
    spread = np.maximum(scores[:, :1] - floor, np.finfo(np.float32).eps)
    weights = 1e-3 + (scores - floor) / spread  # the farthest still breaks ties
    same = labels[:, :, None] == labels[:, None, :]
    sums = (same * weights[:, None, :]).sum(axis=2)
    winners: NDArray[np.int64] = labels[np.arange(len(labels)), sums.argmax(axis=1)]
    return winners


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of unit length, float32 and C-contiguous; zeros stay zeros."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    norms: NDArray[np.float32] = np.asarray(np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
    norms[norms == 0] = 1
    unit: NDArray[np.float32] = rows / norms
    return unit
