"""Exact search: every vector is compared with the query."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import VectorIndexError
from vitmae_search.vectors.protocols import Ids, Matches, Rows, Vectors

UNIT_TOLERANCE = 1e-3
_ROWS_AT_ONCE = 4096
_PART_BYTES = 16 << 20
"""A part smaller than this is joined with what is added next, so that there are few of them."""

_TIMED_BYTES = 32 << 20
_TIMES = 5

_GATHERED_FLOATS = 1 << 18
"""Picked rows are multiplied so many numbers at a time: they are in the cache still, and too few for BLAS to
wake threads, which would wait for those of FAISS."""

_GATHERING = 6
"""Rows picked one by one cost about six times as much as rows in a row (measured at D = 192 and 768)."""


class ExactIndex:
    """Vectors in a few float32 matrices, one below the other: each query is a matrix product.

    A product sums in an order that varies with the machine's threads, so equal vectors may get scores
    that differ in the last bit. Here it only says who may be among the k best: all within the rounding
    error of the k-th. Each of those is scored again in float64, rounded to float32, and ordered by score,
    then by id.

    The first matrix may be a mapped file. No array is changed in place, so `copy` shares them all.
    """

    def __init__(self, dimension: int) -> None:
        if dimension < 1:
            raise VectorIndexError(f"A vector index needs a dimension of at least 1, not {dimension}.")
        self._dimension = dimension
        self._parts: tuple[Vectors, ...] = ()
        self._starts = np.zeros(1, np.int64)  # the first row of each part, and after the last one
        self._row_ids: Ids = np.empty(0, np.int64)
        self._ids: Ids = np.empty(0, np.int64)  # sorted, without those that were removed
        self._rows: Rows = np.empty(0, np.int64)  # the row of each of them
        self._removed: Rows = np.empty(0, np.int64)  # rows that nobody has any more

    @classmethod
    def of(cls, ids: Ids, vectors: Vectors) -> ExactIndex:
        """The index of (N,) ids and (N, D) float32 unit vectors, which is used as it is, not copied.

        Vectors are not looked at: they were when they were written. Raises `VectorIndexError` for wrong ids.
        """
        index = cls(vectors.shape[1])
        ids = checked_ids(ids)
        index._rows = np.argsort(ids, kind="stable")
        index._row_ids, index._ids = ids, ids[index._rows]
        if len(ids) != len(vectors) or (np.diff(index._ids) == 0).any():
            raise VectorIndexError("Each vector needs an id of its own.")
        index._set_parts((vectors,))
        return index

    @property
    def dimension(self) -> int:
        return self._dimension

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> Ids:
        """All ids, sorted; a copy."""
        return self._ids.copy()

    @property
    def bytes_scanned(self) -> int:
        """What one search reads."""
        return int(self._starts[-1]) * self._dimension * np.dtype(np.float32).itemsize

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Add (N,) ids with (N, D) vectors, all or none.

        Raises `VectorIndexError` for an id that is negative, there already or given twice, and for
        vectors that are not float32, finite and of unit length.
        """
        ids = checked_ids(ids)
        check_vectors(ids, vectors, self._dimension)
        if not len(ids):
            return
        if len(np.unique(ids)) != len(ids) or self.contains(ids).any():
            raise VectorIndexError("An id is in the vector index already; ids are never used again.")
        rows = self._starts[-1] + np.arange(len(ids))
        all_ids = np.concatenate([self._ids, ids])
        order = np.argsort(all_ids, kind="stable")
        self._row_ids = np.concatenate([self._row_ids, ids])
        self._ids, self._rows = all_ids[order], np.concatenate([self._rows, rows])[order]
        parts = self._parts
        if parts and parts[-1].nbytes < _PART_BYTES:
            parts, vectors = parts[:-1], np.concatenate([parts[-1], vectors])
        self._set_parts((*parts, np.array(vectors, np.float32, order="C")))

    def remove(self, ids: Ids) -> int:
        """Remove the ids that are there, and say how many they were."""
        gone = np.isin(self._ids, checked_ids(ids))
        if gone.any():
            self._removed = np.concatenate([self._removed, self._rows[gone]])
            self._ids, self._rows = self._ids[~gone], self._rows[~gone]
        return int(gone.sum())

    def contains(self, ids: Ids) -> NDArray[np.bool_]:
        """Which of (N,) ids are there: (N,) bool."""
        return among_sorted(np.asarray(ids, np.int64), self._ids)

    def vectors(self, ids: Ids) -> Vectors:
        """The (N, D) float32 vectors of (N,) ids; `VectorIndexError` where one is not there."""
        ids = checked_ids(ids)
        if not self.contains(ids).all():
            raise VectorIndexError("An id is not in the vector index.")
        return self._gathered(self._rows[np.searchsorted(self._ids, ids)])

    def chunks(self) -> Iterator[tuple[Ids, Vectors]]:
        """All ids and vectors by id, in chunks of (n,) and (n, D)."""
        for start in range(0, len(self._ids), _ROWS_AT_ONCE):
            places = slice(start, start + _ROWS_AT_ONCE)
            yield self._ids[places], self._gathered(self._rows[places])

    def search(
        self, queries: Vectors, k: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> list[Matches]:
        """The k best of each of (Q, D) float32 queries; see `VectorIndex.search`."""
        check_queries(queries, k, self._dimension)
        rows = self._chosen(allowed, excluded)
        return [self._nearest(query, k, rows) for query in queries]

    def copy(self) -> ExactIndex:
        """One that can be changed while this one is searched."""
        other = ExactIndex(self._dimension)
        other.__dict__.update(self.__dict__)
        return other

    def _set_parts(self, parts: Sequence[Vectors]) -> None:
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])

    def _chosen(self, allowed: Ids | None, excluded: Ids | None) -> Rows | None:
        """The rows to search; None for all."""
        if allowed is None and (excluded is None or not len(excluded)):
            return None
        rows = self._rows
        if allowed is not None:
            ids = sorted_ids(allowed)
            ids = ids[self.contains(ids)]
            rows = rows[np.searchsorted(self._ids, ids)]
        else:
            ids = self._ids
        return rows if excluded is None else rows[~np.isin(ids, checked_ids(excluded))]

    def _nearest(self, query: Vectors, k: int, rows: Rows | None) -> Matches:
        if rows is not None and len(rows) * _GATHERING < self._starts[-1]:
            found = rows[_best(self._products_of(rows, query), k, query)]
        else:
            scores = self._products(query)
            if rows is None:
                scores[self._removed] = -np.inf
            else:
                others = np.ones(len(scores), np.bool_)
                others[rows] = False
                scores[others] = -np.inf
            found = _best(scores, k, query)
        return ordered(self._row_ids[found], self._gathered(found), query, k)

    def _products(self, query: Vectors) -> Vectors:
        scores = np.empty(self._starts[-1], np.float32)
        for part, start in zip(self._parts, self._starts[:-1], strict=True):
            np.dot(part, query, out=scores[start : start + len(part)])
        return scores

    def _products_of(self, rows: Rows, query: Vectors) -> Vectors:
        scores, step = np.empty(len(rows), np.float32), 1 + _GATHERED_FLOATS // self._dimension
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            np.dot(self._gathered(rows[some]), query, out=scores[some])
        return scores

    def _gathered(self, rows: Rows) -> Vectors:
        if len(self._parts) == 1:
            return self._parts[0][rows]
        vectors = np.empty((len(rows), self._dimension), np.float32)
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(owners):
            mine = owners == number
            vectors[mine] = self._parts[number][rows[mine] - self._starts[number]]
        return vectors


def exact_seconds(exact: ExactIndex) -> float:
    """How long an exact search takes here and now, judged by a part of the vectors."""
    ids = exact.ids[: max(1, _TIMED_BYTES // (4 * exact.dimension))]
    if not len(ids):
        return 0.0
    sample = ExactIndex.of(ids, exact.vectors(ids))
    query, seconds = sample.vectors(ids[:1]), []
    for _ in range(_TIMES):
        start = time.perf_counter()
        sample.search(query, 10)
        seconds.append(time.perf_counter() - start)
    return min(seconds) * exact.bytes_scanned / sample.bytes_scanned


def ordered(ids: Ids, vectors: Vectors, query: Vectors, k: int) -> Matches:
    """The k best of (n,) ids with (n, D) vectors: scored in float64, the smaller id first in a tie."""
    scores = np.empty(len(ids), np.float32)
    for start in range(0, len(ids), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        scores[rows] = (vectors[rows].astype(np.float64) * query).sum(axis=1)
    order = np.lexsort((ids, -scores))[:k]
    return Matches(ids[order], scores[order])


def checked_ids(ids: Ids) -> Ids:
    """(N,) int64. Raises `VectorIndexError` for anything but whole numbers from 0 to 2^63 - 1."""
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise VectorIndexError("Ids must be whole numbers in one dimension.")
    if array.size and (array.min() < 0 or array.max() > np.iinfo(np.int64).max):
        raise VectorIndexError("Ids must not be negative, nor above 2^63 - 1.")
    return np.ascontiguousarray(array, np.int64)


def sorted_ids(ids: Ids) -> Ids:
    """(N,) int64, each once and in order, as they usually come."""
    ids = checked_ids(ids)
    return ids if (np.diff(ids) > 0).all() else np.unique(ids)


def among_sorted(ids: Ids, others: Ids) -> NDArray[np.bool_]:
    """Which of (N,) ids are among others, which are sorted: (N,) bool."""
    if not len(others):
        return np.zeros(len(ids), np.bool_)
    places = np.minimum(np.searchsorted(others, ids), len(others) - 1)
    found: NDArray[np.bool_] = others[places] == ids
    return found


def check_vectors(ids: Ids, vectors: Vectors, dimension: int) -> None:
    """Raise `VectorIndexError` unless there is one (D,) float32 vector of unit length for each id."""
    _check_rows(vectors, dimension)
    if len(vectors) != len(ids):
        raise VectorIndexError(f"{len(ids)} ids came with {len(vectors)} vectors.")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if (np.abs(norms - 1.0) > UNIT_TOLERANCE).any():
        raise VectorIndexError("A vector is not of unit length, so its scores would not be cosines.")


def check_queries(queries: Vectors, k: int, dimension: int) -> None:
    """Raise `VectorIndexError` for queries that are not (Q, D) float32, or k below 1."""
    _check_rows(queries, dimension)
    if k < 1:
        raise VectorIndexError(f"k must be at least 1, not {k}.")


def _check_rows(vectors: Vectors, dimension: int) -> None:
    if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32:
        raise VectorIndexError("Vectors must be a float32 array.")
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise VectorIndexError(
            f"Vectors of shape {vectors.shape} do not fit an index of dimension {dimension}."
        )
    if not np.isfinite(vectors).all():
        raise VectorIndexError("A vector holds NaN or infinity.")


def _best(scores: Vectors, k: int, query: Vectors) -> Rows:
    """The places of all that may be among the k best, whatever rounding did to (N,) float32 scores.

    A sum of D products of unit vectors is off by at most D rounding errors; two scores may be off in
    opposite directions. -inf is never among them.
    """
    lowest = np.finfo(np.float32).min
    if len(scores) > k:
        error = float(np.linalg.norm(query.astype(np.float64))) * (len(query) + 2) * 2.0**-23
        lowest = max(lowest, np.partition(scores, len(scores) - k)[len(scores) - k] - 2 * error)
    return np.flatnonzero(scores >= lowest)
