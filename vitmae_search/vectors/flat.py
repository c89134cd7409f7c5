"""Exact search: every vector is compared with the query."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import VectorCacheDamaged, VectorIndexError
from vitmae_search.vectors.contract import Ids, Matches, Vectors

_MARGIN = 16  # candidates fetched beyond k, so that a tie at the boundary is usually seen at once
_GROWTH = 8
_UNIT_TOLERANCE = 1e-3
_SCORED_AT_ONCE = 4096
_BITMAP_SPARSITY = 512  # bits of a bitmap for each id, above which a hash set is smaller
_NOTHING = Matches(np.empty(0, np.int64), np.empty(0, np.float32))


class FlatIndex:
    """`IndexIDMap2` over `IndexFlatIP`: exact, with a total order that does not depend on FAISS.

    FAISS sums a product in an order that varies with the batch, so equal vectors may get scores that
    differ in the last bit, and it breaks ties by position. Here it only proposes candidates: each is
    scored again in float64, rounded to float32, and ordered by score, then by id; candidates are
    fetched until none that FAISS left out could belong among the k.
    """

    def __init__(self, dimension: int) -> None:
        if dimension < 1:
            raise VectorIndexError(f"A vector index needs a dimension of at least 1, not {dimension}.")
        self._index: Any = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))
        self._ids: Ids = np.empty(0, np.int64)  # sorted

    @property
    def dimension(self) -> int:
        return int(self._index.d)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> Ids:
        """All ids, sorted; a copy."""
        return self._ids.copy()

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Add (N,) ids with (N, D) vectors, all or none.

        Raises `VectorIndexError` for an id that is negative, there already or given twice (FAISS takes
        it silently), and for vectors that are not float32, finite and of unit length.
        """
        ids = _checked_ids(ids)
        self._check_vectors(vectors)
        if len(vectors) != len(ids):
            raise VectorIndexError(f"{len(ids)} ids came with {len(vectors)} vectors.")
        if not len(ids):
            return
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        if (np.abs(norms - 1.0) > _UNIT_TOLERANCE).any():
            raise VectorIndexError("A vector is not of unit length, so its scores would not be cosines.")
        new = np.unique(ids)
        if len(new) != len(ids) or self.contains(ids).any():
            raise VectorIndexError("An id is in the vector index already; ids are never used again.")
        self._index.add_with_ids(np.ascontiguousarray(vectors), ids)
        self._ids = np.sort(np.concatenate([self._ids, new]), kind="stable")

    def remove(self, ids: Ids) -> int:
        """Remove the ids that are there, and say how many they were."""
        ids = np.unique(_checked_ids(ids))
        ids = ids[self.contains(ids)]
        if len(ids):
            self._index.remove_ids(ids)
            self._ids = np.setdiff1d(self._ids, ids, assume_unique=True)
        return len(ids)

    def contains(self, ids: Ids) -> NDArray[np.bool_]:
        """Which of (N,) ids are there: (N,) bool."""
        ids = np.asarray(ids, np.int64)
        if not len(self._ids):
            return np.zeros(len(ids), np.bool_)
        places = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        found: NDArray[np.bool_] = self._ids[places] == ids
        return found

    def vectors(self, ids: Ids) -> Vectors:
        """The (N, D) float32 vectors of (N,) ids; `VectorIndexError` where one is not there."""
        ids = _checked_ids(ids)
        if not self.contains(ids).all():
            raise VectorIndexError("An id is not in the vector index.")
        if not len(ids):
            return np.empty((0, self.dimension), np.float32)
        vectors: Vectors = self._index.reconstruct_batch(ids)
        return vectors

    def search(
        self, queries: Vectors, k: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> list[Matches]:
        """The k best of each of (Q, D) float32 queries; see `VectorIndex.search`."""
        self._check_vectors(queries)
        if k < 1:
            raise VectorIndexError(f"k must be at least 1, not {k}.")
        if not len(self):
            return [_NOTHING] * len(queries)
        selector = _Selector(allowed, excluded)
        queries = np.ascontiguousarray(queries)
        settled: dict[int, Matches] = {}
        fetch = min(k + _MARGIN, len(self))
        while pending := [row for row in range(len(queries)) if row not in settled]:
            proposed, found = self._index.search(queries[pending], fetch, params=selector.parameters)
            for row, scores, ids in zip(pending, proposed, found, strict=True):
                matches = self._settle(queries[row], k, scores, ids)
                if matches is not None:
                    settled[row] = matches
            fetch = min(fetch * _GROWTH, len(self))
        return [settled[row] for row in range(len(queries))]

    def _settle(self, query: Vectors, k: int, proposed: Vectors, found: Ids) -> Matches | None:
        """The k best of FAISS's candidates, or None where one that it left out might be among them."""
        here = found >= 0  # FAISS fills up with -1
        ids, scores = self._ordered(query, found[here])
        exhausted = len(ids) == len(self) or not here.all()
        if exhausted or (len(ids) >= k and proposed[-1] + self._tolerance(query) < scores[k - 1]):
            return Matches(ids[:k].copy(), scores[:k].copy())
        return None

    def _tolerance(self, query: Vectors) -> float:
        """How far FAISS's float32 score may be from ours: a sum of D products of unit vectors."""
        return float(np.linalg.norm(query.astype(np.float64))) * (self.dimension + 2) * 2.0**-23

    def _ordered(self, query: Vectors, ids: Ids) -> tuple[Ids, Vectors]:
        scores = np.empty(len(ids), np.float32)
        for start in range(0, len(ids), _SCORED_AT_ONCE):
            rows = slice(start, start + _SCORED_AT_ONCE)
            products = self._index.reconstruct_batch(ids[rows]).astype(np.float64) * query
            scores[rows] = products.sum(axis=1)
        order = np.lexsort((ids, -scores))
        return ids[order], scores[order]

    def _check_vectors(self, vectors: Vectors) -> None:
        if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32:
            raise VectorIndexError("Vectors must be a float32 array.")
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise VectorIndexError(
                f"Vectors of shape {vectors.shape} do not fit an index of dimension {self.dimension}."
            )
        if not np.isfinite(vectors).all():
            raise VectorIndexError("A vector holds NaN or infinity.")

    def copy(self) -> FlatIndex:
        """One that can be changed while this one is searched."""
        other = FlatIndex(self.dimension)
        other._index = faiss.clone_index(self._index)
        other._ids = self._ids
        return other

    def to_bytes(self) -> NDArray[np.uint8]:
        """FAISS's own serialisation. It has no checksum: keep one beside it."""
        payload: NDArray[np.uint8] = faiss.serialize_index(self._index)
        return payload

    @classmethod
    def from_bytes(cls, payload: NDArray[np.uint8], dimension: int) -> FlatIndex:
        """What `to_bytes` gave. Verify the bytes first: FAISS trusts them.

        Raises `VectorCacheDamaged` where they hold anything else.
        """
        try:
            index = faiss.deserialize_index(payload)
        except RuntimeError as error:
            raise VectorCacheDamaged(f"FAISS cannot read the stored index ({error}).") from error
        if not isinstance(index, faiss.IndexIDMap2) or index.d != dimension:
            raise VectorCacheDamaged("The stored index is of another kind or dimension.")
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise VectorCacheDamaged("The stored index has another metric.")
        flat = cls(dimension)
        flat._index = index
        flat._ids = np.sort(faiss.vector_to_array(index.id_map).astype(np.int64))
        if len(flat._ids) != index.ntotal or (np.diff(flat._ids) == 0).any():
            raise VectorCacheDamaged("The stored index has an id twice.")
        return flat


class _Selector:
    """FAISS's `SearchParameters` for sets of ids; holds the SWIG objects that they point to."""

    def __init__(self, allowed: Ids | None, excluded: Ids | None) -> None:
        self._parts: list[Any] = []
        selectors = []
        if allowed is not None:
            selectors.append(self._members(allowed))
        if excluded is not None and len(excluded):
            selectors.append(self._keep(faiss.IDSelectorNot(self._members(excluded))))
        if len(selectors) == 2:
            selectors = [self._keep(faiss.IDSelectorAnd(*selectors))]
        parameters: Any = faiss.SearchParameters  # its stub has the C++ signature
        self.parameters = parameters(sel=selectors[0]) if selectors else None

    def _keep(self, part: Any) -> Any:
        self._parts.append(part)
        return part

    def _members(self, ids: Ids) -> Any:
        ids = np.unique(_checked_ids(ids))
        highest = int(ids[-1]) if len(ids) else 0
        if highest > _BITMAP_SPARSITY * (len(ids) + _BITMAP_SPARSITY):
            return self._keep(faiss.IDSelectorBatch(ids))
        bits = np.zeros(highest // 8 + 1, np.uint8)
        np.bitwise_or.at(bits, ids // 8, np.left_shift(1, ids % 8).astype(np.uint8))
        bitmap: Any = faiss.IDSelectorBitmap  # its stub has the C++ signature
        self._keep(bits)
        return self._keep(bitmap(bits))


def _checked_ids(ids: Ids) -> Ids:
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise VectorIndexError("Ids must be whole numbers in one dimension.")
    if array.size and (array.min() < 0 or array.max() > np.iinfo(np.int64).max):
        raise VectorIndexError("Ids must not be negative, nor above 2^63 - 1.")
    return np.ascontiguousarray(array, np.int64)
