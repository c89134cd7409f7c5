"""The k nearest neighbours of many vectors, and how often each vector is one: hubness.

Among vectors of many dimensions some are neighbours of very many others, the hubs, and most of few or none
(Radovanović, Nanopoulos and Ivanović, "Hubs in Space: Popular Nearest Neighbors in High-Dimensional Data",
JMLR 11, 2010). Their measure is N_k(x), the number of vectors that have x among their k nearest, and the
skewness of its distribution.

Scores are computed block by block, so memory grows with the number of vectors and not with its square.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_QUERIES, _VECTORS = 1024, 8192
"""Vectors that are compared at once: their scores are 32 MiB."""
_POOLS = (512, 4096)
"""Vectors, drawn at random, by which most that do not have a vector as a neighbour are left out soon."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class NeighbourGraph:
    """The nearest neighbours of vectors, or of some drawn from them.

    Attributes:
        count: N, the vectors among which neighbours are.
        queries: (S,) int64, the rows whose neighbours these are; all where S is N.
        neighbours: (S, k) int64, rows, the nearest first.
        scores: (S, k) float32, their cosines.
        usual: (S,) int64, N_k of each of `queries`, so that one sees what is usual; where they are drawn from
            more, N_k as if there were no others, as how often one is drawn as a neighbour would say little.
    """

    count: int
    queries: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    scores: NDArray[np.float32]
    usual: NDArray[np.int64]

    @property
    def k(self) -> int:
        """Neighbours of a vector."""
        return int(self.neighbours.shape[1])

    @property
    def complete(self) -> bool:
        """Whether it has the neighbours of all vectors."""
        return len(self.queries) == self.count

    def counts(self) -> NDArray[np.int64]:
        """(N,) int64: how many of `queries` have each vector among their k nearest."""
        return np.bincount(self.neighbours.ravel(), minlength=self.count)

    def occurrences(self) -> NDArray[np.float64]:
        """(N,) float64: N_k of each vector; estimated where only some were looked at."""
        return np.asarray(self.counts() * (self.count / max(1, len(self.queries))), np.float64)

    def skewness(self) -> float:
        """The skewness of N_k, 0 for vectors that are all neighbours equally often.

        Of a sample it is computed from factorial moments: E[m(m-1)...(m-r+1)] of counts m in S of N vectors,
        drawn without replacement, is that of N_k times S(S-1)...(S-r+1) / N(N-1)...(N-r+1). Those of the
        sample's own counts would say too little.
        """
        if not self.count:
            return 0.0
        counts, total, drawn = self.counts().astype(np.float64), float(self.count), float(len(self.queries))
        first, second, third = (
            float(np.mean(_falling(counts, r)) * _falling(total, r) / max(_falling(drawn, r), 1.0))
            for r in (1, 2, 3)
        )
        raw2, raw3 = second + first, third + 3 * second + first
        variance = raw2 - first**2
        if variance <= 1e-9:
            return 0.0
        return float((raw3 - 3 * first * raw2 + 2 * first**3) / variance**1.5)


def _falling(value: NDArray[np.float64] | float, factors: int) -> NDArray[np.float64]:
    """Value · (value - 1) · ..., with so many factors."""
    return np.asarray(np.prod([np.asarray(value) - i for i in range(factors)], axis=0), np.float64)


def neighbour_graph(
    vectors: NDArray[np.float32],
    k: int,
    *,
    sample: int | None = None,
    on_progress: Progress = lambda done, total: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> NeighbourGraph:
    """Find the nearest neighbours of vectors among all others.

    Args:
        vectors: (N, D), of unit length.
        k: Neighbours of each, 1 or more; fewer where there are fewer others.
        sample: Look for those of so many vectors, drawn at random with a fixed seed; None for all.
        on_progress: Called with how many are done, and of how many.
        cancelled: Asked at each block; once it returns True the rest is left out.
    """
    count = len(vectors)
    k = max(0, min(k, count - 1))
    queries = np.arange(count)
    if sample is not None and sample < count:
        queries = np.sort(np.random.default_rng(0).choice(count, sample, replace=False))
    rows, scores = _neighbours(vectors, queries, k, on_progress, cancelled)
    queries = queries[: len(rows)]
    counted, among = rows, count
    if len(queries) < count:
        among = len(queries)
        counted, _ = _neighbours(
            vectors[queries], np.arange(among), min(k, max(among - 1, 0)), lambda done, total: None, cancelled
        )
    usual = np.bincount(counted.ravel(), minlength=among)
    return NeighbourGraph(count, queries, rows, scores, usual)


def _neighbours(
    vectors: NDArray[np.float32],
    queries: NDArray[np.int64],
    k: int,
    on_progress: Progress,
    cancelled: Callable[[], bool],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows and scores of the k nearest others of rows, each (Q, k); fewer where it was cancelled."""
    rows, scores = np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32)
    for start in range(0, len(queries) if k else 0, _QUERIES):
        if cancelled():
            return rows[:start], scores[:start]
        on_progress(start, len(queries))
        places = slice(start, start + _QUERIES)
        rows[places], scores[places] = _nearest(vectors, queries[places], k)
    return rows, scores


def _nearest(
    vectors: NDArray[np.float32], queries: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows and scores of the k nearest others of some rows, each (Q, k)."""
    own = vectors[queries]
    rows = np.zeros((len(queries), k), np.int64)
    best = np.full((len(queries), k), -np.inf, np.float32)
    for start in range(0, len(vectors), _VECTORS):
        found = own @ vectors[start : start + _VECTORS].T
        inside = np.flatnonzero((queries >= start) & (queries < start + _VECTORS))
        found[inside, queries[inside] - start] = -np.inf
        if start == 0 and found.shape[1] > k:
            at = np.argpartition(found, -k, axis=1)[:, -k:]
            lines, columns = np.repeat(np.arange(len(queries)), k), at.ravel()
        else:  # few are better than those that are there
            lines, columns = np.nonzero(found > best[:, -1:])
        values = found[lines, columns]
        lines = np.concatenate([np.repeat(np.arange(len(queries)), k), lines])
        values = np.concatenate([best.ravel(), values])
        places = np.concatenate([rows.ravel(), columns + start])
        order = np.lexsort((-values, lines))
        firsts = np.searchsorted(lines[order], np.arange(len(queries)))
        chosen = order[firsts[:, None] + np.arange(k)]
        rows, best = places[chosen], values[chosen]
    return rows, best


def nearest(
    vectors: NDArray[np.float32], vector: NDArray[np.float32], k: int, own: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows and scores of the k nearest vectors of one, the nearest first.

    Args:
        vectors: (N, D), of unit length.
        vector: (D,), of unit length.
        k: How many; fewer where there are fewer.
        own: Its own row, which is left out; None where it has none.
    """
    scores = vectors @ vector
    if own is not None:
        scores[own] = -np.inf
    rows = np.argsort(-scores, kind="stable")[: min(k, len(scores) - (own is not None))]
    return rows, scores[rows]


def reverse_neighbours(
    vectors: NDArray[np.float32], vector: NDArray[np.float32], k: int, own: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows and scores of all vectors that have one among their k nearest, the nearest first.

    It is exact, and compares few: a vector for which k of some drawn at random are nearer already has it not
    among its nearest.

    Args:
        vectors: (N, D), of unit length.
        vector: (D,), of unit length.
        k: Neighbours of each.
        own: Its own row; None where it has none.
    """
    scores = vectors @ vector
    left = np.arange(len(vectors))
    left = left[left != own]
    drawn = np.random.default_rng(0).permutation(len(vectors))
    for size in (*(size for size in _POOLS if size < len(vectors)), len(vectors)):
        pool = np.sort(drawn[:size])
        pool = pool[pool != own]
        left = left[_nearer(vectors, left, scores[left], pool) < k]
    order = np.argsort(-scores[left], kind="stable")
    return left[order], scores[left[order]]


def _nearer(
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    pool: NDArray[np.int64],
) -> NDArray[np.int64]:
    """How many others of a pool, in order, have a higher score with each row than it has itself, (R,)."""
    nearer = np.zeros(len(rows), np.int64)
    for start in range(0, len(rows), _QUERIES):
        some = rows[start : start + _QUERIES]
        own, least = vectors[some], scores[start : start + len(some), None]
        for first in range(0, len(pool), _VECTORS):
            others = pool[first : first + _VECTORS]
            found = own @ vectors[others].T
            places = np.minimum(np.searchsorted(others, some), len(others) - 1)
            itself = np.flatnonzero(others[places] == some)
            found[itself, places[itself]] = -np.inf
            nearer[start : start + len(some)] += (found > least).sum(axis=1)
    return nearer
