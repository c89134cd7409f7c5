"""Approximate search with FAISS: hundreds of candidates from codes of a few bytes a vector.

This is the only file that knows which index type is used; `benchmarks/vector_search.py` compares it with
others.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import VectorCacheDamaged
from vitmae_search.vectors.exact import ExactIndex
from vitmae_search.vectors.protocols import Ids, IsCancelled, Vectors, never_cancel

CANDIDATE_COUNTS = (200, 400, 1000, 2000)
"""How many candidates a search for ten may compare exactly, from the fastest to the most thorough."""

LIST_SHARES = (0.25, 0.5, 1.0)
"""The shares of inverted lists that a search without a filter may read. Photos that are not in the library
have neighbours in more lists than the queries by which this is chosen, so it is never less than a quarter."""

_FEW_CANDIDATES = 1000
"""Searches among lists compare no fewer candidates than this, for the same reason."""

_LISTS_FROM = 250_000
"""Reading the codes of fewer vectors takes less than a millisecond."""

_CODES_A_THREAD = 500_000
"""One thread reads these in 2 ms. Fewer gain less than a second thread costs."""

_PCA_DIMENSIONS = 128

_MAX_TRAINING_VECTORS = 40_000
_MIN_TRAINING_VECTORS = 1024
_TRAINED_ON_FOR_A_LIST = 50
_ADD_CHUNK = 16384
_BITMAP_SPARSITY = 512  # a bitmap with more bits than this for each id is larger than a hash set


def factory_strings(dimension: int, count: int) -> list[str]:
    """Return the FAISS factory strings to try, the fastest first.

    First: PCA, a random rotation, and 4-bit product quantisation of pairs of dimensions (Jégou et al., 2011)
    with tables in SIMD registers (André et al., 2015). Then: the signs of all dimensions after a random
    rotation, RaBitQ (Gao and Long, 2024). Both are in an inverted file, with a single list where there are
    few vectors: FAISS offers filters and removals with lists only.

    Args:
        dimension: Numbers in a vector, at least 2.
        count: How many vectors there are.
    """
    principal = min(_PCA_DIMENSIONS, dimension // 2 * 2)
    lists = 1 if count < _LISTS_FROM else math.isqrt(count) // 2
    return [f"PCAR{principal},IVF{lists},PQ{principal // 2}x4fs", "RR,IVF1,RaBitQfs"]


class BuildCancelled(Exception):
    """Building an index was cancelled."""


def raise_if_cancelled(cancelled: IsCancelled) -> None:
    """Raise `BuildCancelled` if `cancelled` returns True."""
    if cancelled():
        raise BuildCancelled


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured of an index.

    Attributes:
        candidates: Candidates that a search for ten compares exactly.
        recall: recall@10 with these, 0 to 1.
        queries: Number of queries that it was measured with.
        built_at: When, ISO 8601 in UTC.
        share: The share of the lists that a search without a filter reads, above 0 to 1.
    """

    candidates: int
    recall: float = 0.0
    queries: int = 0
    built_at: str = ""
    share: float = 1.0


class ApproximateIndex:
    """FAISS codes under ids. A search compares all codes, or those of the nearest lists.

    Immutable; many threads may search it.
    """

    def __init__(self, kind: str, index: Any, ids: Ids, trained_on: int, measured: Measurement) -> None:
        """Wrap a FAISS index.

        Args:
            kind: Its factory string.
            index: The FAISS index, which holds `ids`.
            ids: (N,) int64, sorted.
            trained_on: Number of vectors that there were when it was trained.
            measured: What is known of its recall.
        """
        self.kind, self._index, self.ids = kind, index, ids
        self.trained_on, self.measured = trained_on, measured
        self._missing: tuple[ExactIndex | None, Ids] = (None, ids[:0])
        self._lists = int(faiss.extract_index_ivf(index).nlist)

    @property
    def list_shares(self) -> tuple[float, ...]:
        """The shares of lists that it may be worth to read, ascending."""
        return LIST_SHARES if self._lists > 1 else (1.0,)

    @property
    def candidate_counts(self) -> tuple[int, ...]:
        """How many candidates it may be enough to compare, ascending."""
        return tuple(count for count in CANDIDATE_COUNTS if self._lists == 1 or count >= _FEW_CANDIDATES)

    @classmethod
    def build(cls, exact: ExactIndex, kind: str, cancelled: IsCancelled = never_cancel) -> ApproximateIndex:
        """Train an index and add all vectors; its recall is not measured yet.

        Args:
            exact: The vectors.
            kind: One of `factory_strings`.
            cancelled: Stops the work.

        Raises:
            BuildCancelled: `cancelled` returned True.
        """
        raise_if_cancelled(cancelled)
        faiss.omp_set_num_threads(_threads())
        # For unit vectors L2 distance and cosine give the same order, also after PCA subtracts the mean.
        index = faiss.index_factory(exact.dimension, kind, faiss.METRIC_L2)
        lists = faiss.extract_index_ivf(index)
        lists.cp.min_points_per_centroid = 1
        many = max(_MAX_TRAINING_VECTORS, _TRAINED_ON_FOR_A_LIST * lists.nlist)
        ids = np.random.default_rng(0).permutation(exact.ids)[:many]
        index.train(exact.vectors(np.resize(ids, max(len(ids), _MIN_TRAINING_VECTORS))))
        return cls(kind, index, ids[:0], len(exact), Measurement(CANDIDATE_COUNTS[-1])).with_added(
            exact, cancelled
        )

    def with_added(self, exact: ExactIndex, cancelled: IsCancelled = never_cancel) -> ApproximateIndex:
        """Return a copy with the vectors added that only `exact` has; its recall is not measured yet.

        Args:
            exact: All vectors of the space.
            cancelled: Stops the work.

        Raises:
            BuildCancelled: `cancelled` returned True.
        """
        faiss.omp_set_num_threads(_threads())
        index, missing = faiss.clone_index(self._index), self.missing_ids(exact)
        for start in range(0, len(missing), _ADD_CHUNK):
            raise_if_cancelled(cancelled)
            some = missing[start : start + _ADD_CHUNK]
            index.add_with_ids(exact.vectors(some), some)
        ids = np.sort(np.concatenate([self.ids, missing]))
        return ApproximateIndex(self.kind, index, ids, self.trained_on, Measurement(CANDIDATE_COUNTS[-1]))

    def with_measurement(self, measured: Measurement) -> ApproximateIndex:
        """Return the same index with this measurement; its searches compare that many candidates."""
        return ApproximateIndex(self.kind, self._index, self.ids, self.trained_on, measured)

    def serialize(self) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Return the index as bytes, and the JSON object that `deserialize` needs as well.

        FAISS's bytes have no checksum, so store one beside them.
        """
        ids = self.ids.astype("<i8").view(np.uint8)
        more = {
            "kind": self.kind,
            "count": len(self.ids),
            "trained_on": self.trained_on,
            "measured": asdict(self.measured),
        }
        return np.concatenate([ids, faiss.serialize_index(self._index)]), more

    @classmethod
    def deserialize(cls, payload: bytes, more: dict[str, Any]) -> ApproximateIndex:
        """Restore what `serialize` returned. FAISS trusts the bytes, so verify their checksum first.

        Args:
            payload: The bytes.
            more: The JSON object.

        Raises:
            VectorCacheDamaged: The bytes are not an index of this kind.
        """
        try:
            ids = np.frombuffer(payload, "<i8", int(more["count"])).astype(np.int64)
            index = faiss.deserialize_index(np.frombuffer(payload, np.uint8, offset=ids.nbytes))
            return cls(more["kind"], index, ids, int(more["trained_on"]), Measurement(**more["measured"]))
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise VectorCacheDamaged(f"The stored approximate index is of another kind ({error}).") from error

    def missing_ids(self, exact: ExactIndex) -> Ids:
        """Return the ids that `exact` has and this index lacks, sorted."""
        known, missing = self._missing
        if known is not exact:
            missing = np.setdiff1d(exact.ids, self.ids, assume_unique=True)
            self._missing = exact, missing
        return missing

    def candidates(
        self, queries: Vectors, k: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> list[Ids | None]:
        """Find candidates for the k nearest of each query.

        Args:
            queries: (Q, D) float32.
            k: Matches that are asked for.
            allowed: Propose these ids only; sorted.
            excluded: Leave these ids out.

        Returns:
            For each query (C,) int64 ids, or None where k is so large, or so few are left, that an exact
            search is better.
        """
        compared = self.measured.candidates
        if allowed is not None and len(self.ids):
            # Among fewer vectors, fewer are as near as the ten nearest by their codes.
            left = min(1.0, len(allowed) / len(self.ids))
            compared = min(compared, max(CANDIDATE_COUNTS[0], math.ceil(compared * math.sqrt(left))))
        wanted = max(1, k // 10) * compared
        if wanted * 4 > len(self.ids):
            return [None] * len(queries)
        selector = _Selector(allowed, excluded)
        # What a filter leaves is further away, and so in more lists.
        share = self.measured.share if allowed is None and wanted * 16 <= len(self.ids) else 1.0
        probed = math.ceil(share * self._lists)
        found = [self._search_lists(query[None], wanted, probed, selector.faiss) for query in queries]
        return [None if len(ids) < wanted or ids[-1] < 0 else ids for ids in found]

    def _search_lists(self, query: Vectors, wanted: int, probed: int, selector: Any) -> Ids:
        """Read the codes of the nearest lists, in several threads where that takes long.

        FAISS's own threads are not used: they wait for each other at every step, 60 ms and more where other
        work has a core.
        """
        threads = min(os.cpu_count() or 1, probed, len(self.ids) * probed // self._lists // _CODES_A_THREAD)
        _use_one_thread()
        if threads < 2:
            of_lists: Any = faiss.SearchParametersIVF  # FAISS's stubs have the C++ signatures
            of_whole: Any = faiss.SearchParametersPreTransform
            parameters = of_whole(index_params=of_lists(nprobe=probed, sel=selector))
            found: Ids = self._index.search(query, wanted, params=parameters)[1][0]
            return found
        lists: Any = faiss.downcast_index(faiss.extract_index_ivf(self._index))
        query = _transformed(self._index, query)
        distances, numbers = lists.quantizer.search(query, probed)
        parts = [
            (
                np.ascontiguousarray(numbers[:, start::threads]),
                np.ascontiguousarray(distances[:, start::threads]),
            )
            for start in range(threads)
        ]
        search = partial(_search_part, lists, query, wanted, selector)
        others = [_pool().submit(search, *part) for part in parts[1:]]
        results = [search(*parts[0]), *(other.result() for other in others)]
        scores, ids = (np.concatenate(column) for column in zip(*results, strict=True))
        nearest: Ids = ids[np.argpartition(scores, wanted - 1)[:wanted]]
        # Places that were left empty have the greatest distance of all, and -1 for an id.
        return nearest[nearest >= 0]


def _search_part(
    lists: Any, query: Vectors, wanted: int, selector: Any, numbers: Ids, distances: Vectors
) -> tuple[Vectors, Ids]:
    """Distances and ids of the nearest in some lists, each (wanted,).

    Args:
        lists: A FAISS index of inverted lists.
        query: (1, D) float32.
        wanted: How many.
        selector: Which vectors.
        numbers: (1, L) int64, the lists.
        distances: (1, L) float32, of their centres.
    """
    _use_one_thread()
    scores, ids = np.empty((1, wanted), np.float32), np.empty((1, wanted), np.int64)
    of_lists: Any = faiss.SearchParametersIVF
    arrays = (faiss.swig_ptr(array) for array in (numbers, distances, scores, ids))
    parameters = of_lists(nprobe=numbers.shape[1], sel=selector)
    lists.search_preassigned_c(1, faiss.swig_ptr(query), wanted, *arrays, False, parameters, None)
    return scores[0], ids[0]


def _transformed(index: Any, query: Vectors) -> Vectors:
    """A query as the lists of an index take it."""
    for number in range(index.chain.size()):
        query = faiss.downcast_VectorTransform(index.chain.at(number)).apply(query)
    return query


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="codes")


def _use_one_thread() -> None:
    """Keep FAISS's searches in the thread that asks. The setting is this thread's only."""
    faiss.omp_set_num_threads(1)


def _threads() -> int:
    """Return the number of cores without the one that is left to searches."""
    return max(1, (os.cpu_count() or 1) - 1)


class _Selector:
    """A FAISS id selector that keeps the SWIG objects alive that it points to."""

    def __init__(self, allowed: Ids | None, excluded: Ids | None) -> None:
        self._parts: list[Any] = []
        selectors = []
        if allowed is not None:
            selectors.append(self._members(allowed))
        if excluded is not None and len(excluded):
            selectors.append(self._keep(faiss.IDSelectorNot(self._members(excluded))))
        if len(selectors) == 2:
            selectors = [self._keep(faiss.IDSelectorAnd(*selectors))]
        self.faiss = selectors[0] if selectors else None

    def _keep(self, part: Any) -> Any:
        self._parts.append(part)
        return part

    def _members(self, ids: Ids) -> Any:
        highest = int(ids.max()) if len(ids) else 0
        if highest > _BITMAP_SPARSITY * (len(ids) + _BITMAP_SPARSITY):
            return self._keep(faiss.IDSelectorBatch(ids))
        here = np.zeros(highest + 1, np.bool_)
        here[ids] = True
        bitmap: Any = faiss.IDSelectorBitmap  # its stub has the C++ signature
        return self._keep(bitmap(self._keep(np.packbits(here, bitorder="little"))))
