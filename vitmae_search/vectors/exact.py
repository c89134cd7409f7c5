"""`ExactIndex`: compares the query with every vector."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import VectorIndexError
from vitmae_search.vectors.protocols import Ids, Matches, Rows, Vectors
from vitmae_search.vectors.stored_rows import StoredRows

UNIT_TOLERANCE = 1e-3
_CHUNK_ROWS = 4096
_MIN_PART_BYTES = 16 << 20
"""A smaller last part is joined with the vectors that are added next, so that there are few parts."""

_SAMPLE_BYTES = 32 << 20
_REPEATS = 5

_BLOCK_FLOATS = 1 << 18
"""Numbers that are gathered or multiplied at once: they stay in the CPU's cache, and a BLAS product of this
size runs in one thread, which waits for no other."""

_THREADED_BYTES = 16 << 20
"""Fewer are multiplied in one thread, block by block. Two saved nothing of 38 MB (two cores, AVX2), and wait
4 to 8 ms for each other wherever other work has a core. More cores were not measured."""

_GATHER_COST = 6
"""A gathered row costs about six times as much as a contiguous one (measured at D = 192 and 768)."""


class ExactIndex:
    """Unit vectors in a few float32 matrices: a query is one matrix product for each.

    A product sums in an order that depends on the number of threads, so equal vectors may get scores that
    differ in the last bit. The products therefore only select who can be among the k best, within the bound
    of the rounding error. These are scored again in float64, rounded to float32, and sorted by score and
    then by id.

    The first matrix may be in a file. No array is changed in place, so copies share them.
    """

    def __init__(self, dimension: int) -> None:
        """Make an empty index for vectors of `dimension` ≥ 1 numbers."""
        if dimension < 1:
            raise VectorIndexError(f"A vector index needs a dimension of at least 1, not {dimension}.")
        self._dimension = dimension
        self._parts: tuple[Vectors | StoredRows, ...] = ()
        self._starts = np.zeros(1, np.int64)  # the first row of each part, and after the last one
        self._row_ids: Ids = np.empty(0, np.int64)
        self._ids: Ids = np.empty(0, np.int64)  # sorted, without removed ones
        self._rows: Rows = np.empty(0, np.int64)  # the row of each of them
        self._removed: Rows = np.empty(0, np.int64)  # rows whose ids were removed

    @classmethod
    def from_arrays(cls, ids: Ids, vectors: Vectors | StoredRows) -> ExactIndex:
        """Make an index of existing arrays without copying or checking the vectors.

        Args:
            ids: (N,) int64, each once.
            vectors: (N, D) float32 of unit length, checked when they were written; may be in a file.

        Raises:
            VectorIndexError: The ids do not fit.
        """
        index = cls(vectors.shape[1])
        ids = validated_ids(ids)
        index._row_ids = index._ids = ids
        index._rows = np.arange(len(ids))
        if not (ids[1:] > ids[:-1]).all():  # they usually ascend
            index._rows = np.argsort(ids, kind="stable")
            index._ids = ids[index._rows]
        if len(ids) != len(vectors) or (index._ids[1:] == index._ids[:-1]).any():
            raise VectorIndexError("Each vector needs an id of its own.")
        index._set_parts((vectors,))
        return index

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self._dimension

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> Ids:
        """All ids, sorted; a copy."""
        return self._ids.copy()

    @property
    def bytes_scanned(self) -> int:
        """Bytes that one search reads."""
        return int(self._starts[-1]) * self._dimension * np.dtype(np.float32).itemsize

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Add vectors, all or none.

        Args:
            ids: (N,) int64 ≥ 0, none of them in the index.
            vectors: (N, D) float32, finite, of unit length.

        Raises:
            VectorIndexError: An id is negative, in the index, or given twice; or a vector is not as above.
        """
        ids = validated_ids(ids)
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
        if parts and isinstance(parts[-1], np.ndarray) and parts[-1].nbytes < _MIN_PART_BYTES:
            parts, vectors = parts[:-1], np.concatenate([parts[-1], vectors])
        self._set_parts((*parts, np.array(vectors, np.float32, order="C")))

    def remove(self, ids: Ids) -> int:
        """Remove those of `ids` that are in the index, and return how many these were."""
        gone = np.isin(self._ids, validated_ids(ids))
        if gone.any():
            self._removed = np.concatenate([self._removed, self._rows[gone]])
            self._ids, self._rows = self._ids[~gone], self._rows[~gone]
        return int(gone.sum())

    def contains(self, ids: Ids) -> NDArray[np.bool_]:
        """Return which of (N,) ids are in the index: (N,) bool."""
        return isin_sorted(np.asarray(ids, np.int64), self._ids)

    def vectors(self, ids: Ids) -> Vectors:
        """Return the (N, D) float32 vectors of (N,) ids; raise `VectorIndexError` if one is missing."""
        ids = validated_ids(ids)
        if not self.contains(ids).all():
            raise VectorIndexError("An id is not in the vector index.")
        return self._gather(self._rows[np.searchsorted(self._ids, ids)])

    def chunks(self, first_row: int = 0) -> Iterator[tuple[Ids, Vectors]]:
        """Yield ids and vectors in the order of ids, in chunks of (n,) and (n, D).

        Args:
            first_row: Leave out the first so many that were added, removed ones counted.
        """
        places = np.flatnonzero(self._rows >= first_row)
        for start in range(0, len(places), _CHUNK_ROWS):
            some = places[start : start + _CHUNK_ROWS]
            yield self._ids[some], self._gather(self._rows[some])

    def count_before(self, row: int) -> int:
        """Return how many of the first `row` that were added are still in the index."""
        return int(np.count_nonzero(self._rows < row))

    def search(
        self, queries: Vectors, k: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> list[Matches]:
        """Find the k nearest vectors of each query; see `VectorIndex.search`.

        Args:
            queries: (Q, D) float32.
            k: Most matches of one query, at least 1.
            allowed: Search these ids only.
            excluded: Leave these ids out.
        """
        check_queries(queries, k, self._dimension)
        rows = self._selected_rows(allowed, excluded)
        return [self._search_one(query, k, rows) for query in queries]

    def copy(self) -> ExactIndex:
        """Return a copy that can be changed while this index is searched."""
        other = ExactIndex(self._dimension)
        other.__dict__.update(self.__dict__)
        return other

    def _set_parts(self, parts: Sequence[Vectors | StoredRows]) -> None:
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])

    def _selected_rows(self, allowed: Ids | None, excluded: Ids | None) -> Rows | None:
        """Return the rows to search; None means all."""
        if allowed is None and (excluded is None or not len(excluded)):
            return None
        rows = self._rows
        if allowed is not None:
            ids = sorted_ids(allowed)
            places = np.searchsorted(self._ids, ids)
            places = places[: np.searchsorted(places, len(self._ids))]
            here = self._ids[places] == ids[: len(places)]
            ids, rows = ids[: len(places)][here], rows[places[here]]
        else:
            ids = self._ids
        return rows if excluded is None else rows[~np.isin(ids, validated_ids(excluded))]

    def _search_one(self, query: Vectors, k: int, rows: Rows | None) -> Matches:
        if rows is not None and len(rows) * _GATHER_COST < self._starts[-1]:
            found = rows[_candidate_rows(self._scores_of_rows(rows, query), k, query)]
        else:
            scores = self._all_scores(query)
            if rows is None:
                scores[self._removed] = -np.inf
            else:
                others = np.ones(len(scores), np.bool_)
                others[rows] = False
                scores[others] = -np.inf
            found = _candidate_rows(scores, k, query)
        return top_k(self._row_ids[found], self._gather(found), query, k)

    def _all_scores(self, query: Vectors) -> Vectors:
        scores = np.empty(self._starts[-1], np.float32)
        for part, start in zip(self._parts, self._starts[:-1], strict=True):
            _product(part, query, scores[start : start + len(part)])
        return scores

    def _scores_of_rows(self, rows: Rows, query: Vectors) -> Vectors:
        scores, step = np.empty(len(rows), np.float32), _block_rows(self._dimension)
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            np.dot(self._gather(rows[some]), query, out=scores[some])
        return scores

    def _gather(self, rows: Rows) -> Vectors:
        if len(self._parts) == 1:
            return self._parts[0][rows]
        vectors = np.empty((len(rows), self._dimension), np.float32)
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(owners):
            mine = owners == number
            vectors[mine] = self._parts[number][rows[mine] - self._starts[number]]
        return vectors


def _product(vectors: Vectors | StoredRows, query: Vectors, out: Vectors) -> None:
    for start, block in vectors.blocks() if isinstance(vectors, StoredRows) else _blocks(vectors):
        np.dot(block, query, out=out[start : start + len(block)])


def _blocks(vectors: Vectors) -> Iterator[tuple[int, Vectors]]:
    """Rows that are multiplied at once, and the first one's number."""
    step = len(vectors) if vectors.nbytes >= _THREADED_BYTES else _block_rows(vectors.shape[1])
    for start in range(0, len(vectors), step):
        yield start, vectors[start : start + step]


def _block_rows(dimension: int) -> int:
    return 1 + _BLOCK_FLOATS // dimension


def exact_seconds(exact: ExactIndex) -> float:
    """Estimate the time of one exact search on this machine, from a sample of the vectors."""
    ids = exact.ids[: max(1, _SAMPLE_BYTES // (4 * exact.dimension))]
    if not len(ids):
        return 0.0
    sample = ExactIndex.from_arrays(ids, exact.vectors(ids))
    query, seconds = sample.vectors(ids[:1]), []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        sample.search(query, 10)
        seconds.append(time.perf_counter() - start)
    return min(seconds) * exact.bytes_scanned / sample.bytes_scanned


def top_k(ids: Ids, vectors: Vectors, query: Vectors, k: int) -> Matches:
    """Score vectors in float64 and return the k best, the smaller id first in a tie.

    Args:
        ids: (n,) int64.
        vectors: (n, D) float32.
        query: (D,) float32.
        k: Most matches.
    """
    scores = np.empty(len(ids), np.float32)
    for start in range(0, len(ids), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        scores[rows] = (vectors[rows].astype(np.float64) * query).sum(axis=1)
    order = np.lexsort((ids, -scores))[:k]
    return Matches(ids[order], scores[order])


def validated_ids(ids: Ids) -> Ids:
    """Return (N,) int64; raise `VectorIndexError` for anything but integers from 0 to 2^63 - 1."""
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise VectorIndexError("Ids must be whole numbers in one dimension.")
    if array.size and (array.min() < 0 or array.max() > np.iinfo(np.int64).max):
        raise VectorIndexError("Ids must not be negative, nor above 2^63 - 1.")
    return np.ascontiguousarray(array, np.int64)


def sorted_ids(ids: Ids) -> Ids:
    """Return (N,) int64, sorted and unique. Ids usually are, so that is checked first."""
    ids = validated_ids(ids)
    if (ids[1:] > ids[:-1]).all():
        return ids
    ids = np.sort(ids)  # not np.unique, which first imports numpy.ma
    return ids[np.diff(ids, prepend=-1) > 0]


def isin_sorted(ids: Ids, others: Ids) -> NDArray[np.bool_]:
    """Return which ids are among others: (N,) bool.

    Args:
        ids: (N,) int64.
        others: (M,) int64, sorted.
    """
    if not len(others):
        return np.zeros(len(ids), np.bool_)
    places = np.minimum(np.searchsorted(others, ids), len(others) - 1)
    found: NDArray[np.bool_] = others[places] == ids
    return found


def check_vectors(ids: Ids, vectors: Vectors, dimension: int) -> None:
    """Raise `VectorIndexError` unless there is one unit vector for each id.

    Args:
        ids: (N,) int64.
        vectors: (N, D) float32.
        dimension: The D that is required.
    """
    _check_rows(vectors, dimension)
    if len(vectors) != len(ids):
        raise VectorIndexError(f"{len(ids)} ids came with {len(vectors)} vectors.")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if (np.abs(norms - 1.0) > UNIT_TOLERANCE).any():
        raise VectorIndexError("A vector does not have norm 1, so its scores would not be cosines.")


def check_queries(queries: Vectors, k: int, dimension: int) -> None:
    """Raise `VectorIndexError` unless the queries and k can be searched.

    Args:
        queries: (Q, D) float32.
        k: At least 1.
        dimension: The D that is required.
    """
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


def _candidate_rows(scores: Vectors, k: int, query: Vectors) -> Rows:
    """Return the places of all scores that can belong to the k best, given float32 rounding.

    A sum of D products of unit vectors is off by at most D rounding errors, and two scores may be off in
    opposite directions. A score of -inf is never returned.
    """
    lowest = np.finfo(np.float32).min
    if len(scores) > k:
        error = float(np.linalg.norm(query.astype(np.float64))) * (len(query) + 2) * 2.0**-23
        lowest = max(lowest, np.partition(scores, len(scores) - k)[len(scores) - k] - 2 * error)
    return np.flatnonzero(scores >= lowest)
