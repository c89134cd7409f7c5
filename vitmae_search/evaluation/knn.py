"""How well nearest neighbours share a label: leave-one-out, exact, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

_CHUNK = 1024  # queries searched at a time


@dataclass(frozen=True, slots=True, eq=False)
class NeighbourScores:
    """One value a photo, so that differences and intervals can be taken over photos.

    `precision` (N,) float64 is the share of the first `k` neighbours with the photo's label; `correct`
    (N,) bool says whether the vote of the first `votes` neighbours names it.
    """

    precision: NDArray[np.float64]
    correct: NDArray[np.bool_]
    k: int
    votes: int

    @property
    def precision_at_k(self) -> float:
        return float(self.precision.mean())

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())


def neighbours(vectors: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The `k` most similar other rows of each row, best first: ids (N, k) and cosines (N, k).

    `vectors` (N, D) need not have unit length; a row of zeros is similar to nothing (cosine 0). A row is
    never its own neighbour, and its exact copies are. Raises `ValueError` unless 0 < k < N.
    """
    count = len(vectors)
    if not 0 < k < count:
        raise ValueError(f"k={k} neighbours need more than {k} rows; there are {count}")
    unit = unit_rows(vectors)
    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    ids = np.empty((count, k), np.int64)
    scores = np.empty((count, k), np.float32)
    for start in range(0, count, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, count))
        found_scores, found = index.search(unit[rows], k + 1)
        other = found != rows[:, None]
        other[other.all(axis=1), -1] = False  # crowded out by its own copies: drop the last one instead
        ids[rows] = found[other].reshape(len(rows), k)
        scores[rows] = found_scores[other].reshape(len(rows), k)
    return ids, scores


def score_neighbours(
    vectors: NDArray[np.float32], labels: NDArray[np.int64], *, k: int = 10, votes: int = 20
) -> NeighbourScores:
    """P@k and the accuracy of the `votes`-nearest-neighbour classifier, leaving each photo itself out.

    `vectors` (N, D), `labels` (N,) integers from 0. Each neighbour votes for its label with a weight of
    its cosine above that of the farthest voter, so that no temperature has to be chosen and the unit of
    the cosines does not matter; equal sums go to the label that is met first.
    """
    if labels.shape != (len(vectors),):
        raise ValueError(f"labels must be ({len(vectors)},), not {labels.shape}")
    ids, scores = neighbours(vectors, max(k, votes))
    found = labels[ids]
    precision = (found[:, :k] == labels[:, None]).mean(axis=1)
    voted = vote(found[:, :votes], scores[:, :votes])
    return NeighbourScores(precision, voted == labels, k, votes)


def vote(labels: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """(N, votes) labels and scores, best first, to the winning label of each row, (N,)."""
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
