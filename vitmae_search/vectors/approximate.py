"""Approximate search: FAISS proposes some hundreds of candidates, from codes of a few bytes a vector.

The one place that knows the kind; `benchmarks/vector_search.py` has those that it was chosen from.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import VectorCacheDamaged
from vitmae_search.vectors.exact import ExactIndex
from vitmae_search.vectors.protocols import Asked, Ids, Vectors, never

CANDIDATES = (200, 400, 1000, 2000)
"""How many a search for ten may compare exactly, from the fastest to the most thorough."""

_PRINCIPAL = 128

_TRAINED_ON = 40_000
_TRAINED_ON_AT_LEAST = 1024
_ADDED_AT_ONCE = 16384
_BITMAP_SPARSITY = 512  # bits of a bitmap for each id, above which a hash set is smaller


def kinds(dimension: int) -> list[str]:
    """FAISS's names of the kinds to try for vectors of `dimension` ≥ 2, the fastest first.

    First the principal dimensions, turned at random and taken two by two, each pair one of 16 places, 4 bits:
    product quantisation (Jégou et al., 2011), whose tables SIMD registers hold (André et al., 2015). Then the
    signs of all dimensions, turned at random: RaBitQ (Gao and Long, 2024). Both have one list, that is, none:
    in FAISS, filters and removals come with lists.
    """
    principal = min(_PRINCIPAL, dimension // 2 * 2)
    return [f"PCAR{principal},IVF1,PQ{principal // 2}x4fs", "RR,IVF1,RaBitQfs"]


class Cancelled(Exception):
    """Building was given up."""


def stop_if(cancelled: Asked) -> None:
    """Raise `Cancelled` where that is asked for."""
    if cancelled():
        raise Cancelled


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of an index: its recall@10 with so many candidates, over how many queries, and when."""

    candidates: int
    recall: float = 0.0
    queries: int = 0
    built_at: str = ""


class ApproximateIndex:
    """Short codes under ids: a search looks at all of them. Never changed once made; many may search it."""

    def __init__(self, kind: str, index: Any, ids: Ids, trained_on: int, measured: Measured) -> None:
        """`index` is FAISS's, and holds the sorted `ids`; it was trained when there were `trained_on`."""
        self.kind, self._index, self.ids = kind, index, ids
        self.trained_on, self.measured = trained_on, measured
        self._later: tuple[ExactIndex | None, Ids] = (None, ids[:0])

    @classmethod
    def build(cls, exact: ExactIndex, kind: str, cancelled: Asked = never) -> ApproximateIndex:
        """An index of all that `exact` holds, of one of `kinds`, to be measured yet. Raises `Cancelled`."""
        stop_if(cancelled)
        faiss.omp_set_num_threads(_threads())
        ids = np.random.default_rng(0).permutation(exact.ids)[:_TRAINED_ON]
        # Distances order unit vectors as cosines do, and still do where PCA has subtracted the mean.
        index = faiss.index_factory(exact.dimension, kind, faiss.METRIC_L2)
        index.train(exact.vectors(np.resize(ids, max(len(ids), _TRAINED_ON_AT_LEAST))))
        return cls(kind, index, ids[:0], len(exact), Measured(CANDIDATES[-1])).joined_by(exact, cancelled)

    def joined_by(self, exact: ExactIndex, cancelled: Asked = never) -> ApproximateIndex:
        """One that has what `exact` gained as well, to be measured yet. Raises `Cancelled`."""
        faiss.omp_set_num_threads(_threads())
        index, later = faiss.clone_index(self._index), self.lacks(exact)
        for start in range(0, len(later), _ADDED_AT_ONCE):
            stop_if(cancelled)
            some = later[start : start + _ADDED_AT_ONCE]
            index.add_with_ids(exact.vectors(some), some)
        ids = np.sort(np.concatenate([self.ids, later]))
        return ApproximateIndex(self.kind, index, ids, self.trained_on, Measured(CANDIDATES[-1]))

    def measured_as(self, measured: Measured) -> ApproximateIndex:
        """The same index, of which this is known; a search compares as many candidates."""
        return ApproximateIndex(self.kind, self._index, self.ids, self.trained_on, measured)

    def stored(self) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """The bytes, and what else `read` needs (JSON). FAISS's have no checksum: keep one beside them."""
        ids = self.ids.astype("<i8").view(np.uint8)
        more = {
            "kind": self.kind,
            "count": len(self.ids),
            "trained_on": self.trained_on,
            "measured": asdict(self.measured),
        }
        return np.concatenate([ids, faiss.serialize_index(self._index)]), more

    @classmethod
    def read(cls, payload: bytes, more: dict[str, Any]) -> ApproximateIndex:
        """What `stored` gave. Verify the bytes first: FAISS trusts them.

        Raises `VectorCacheDamaged` where they hold anything else.
        """
        try:
            ids = np.frombuffer(payload, "<i8", int(more["count"])).astype(np.int64)
            index = faiss.deserialize_index(np.frombuffer(payload, np.uint8, offset=ids.nbytes))
            return cls(more["kind"], index, ids, int(more["trained_on"]), Measured(**more["measured"]))
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise VectorCacheDamaged(f"The stored approximate index is of another kind ({error}).") from error

    def lacks(self, exact: ExactIndex) -> Ids:
        """The ids that `exact` gained since this was built."""
        known, later = self._later
        if known is not exact:
            later = np.setdiff1d(exact.ids, self.ids, assume_unique=True)
            self._later = exact, later
        return later

    def propose(
        self, query: Vectors, k: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> Ids | None:
        """The ids that a (1, D) query's k best should be among.

        None where so many are asked for, or so few found, that an exact search is the better way.
        """
        wanted = max(1, k // 10) * self.measured.candidates
        if wanted * 4 > len(self.ids):
            return None
        selector = _Selector(allowed, excluded)
        # One query keeps one core busy: more threads would wait for each other. This thread's setting only.
        faiss.omp_set_num_threads(1)
        of_lists: Any = faiss.SearchParametersIVF  # their stubs have the C++ signatures
        of_whole: Any = faiss.SearchParametersPreTransform
        parameters = of_whole(index_params=of_lists(nprobe=1, sel=selector.faiss))
        found: Ids = self._index.search(query, wanted, params=parameters)[1][0]
        return None if found[-1] < 0 else found


def _threads() -> int:
    """All cores but one, which is left to searches."""
    return max(1, (os.cpu_count() or 1) - 1)


class _Selector:
    """FAISS's selector for sets of ids; holds the SWIG objects that it points to."""

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
