"""Approximate search: FAISS proposes a few hundred candidates, from codes of about a bit a dimension.

The one place that knows the kind. Another one needs `_trained`, the parameters of a search, and `EFFORTS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import VectorCacheDamaged
from vitmae_search.vectors.contract import Ids, Vectors
from vitmae_search.vectors.exact import ExactIndex

_TRAINED_ON = 64
_ROUNDS = 6
_ADDED_AT_ONCE = 16384
_BITMAP_SPARSITY = 512  # bits of a bitmap for each id, above which a hash set is smaller


Asked = Callable[[], bool]


class Cancelled(Exception):
    """Building was given up."""


def stop_if(cancelled: Asked) -> None:
    """Raise `Cancelled` where that is asked for."""
    if cancelled():
        raise Cancelled


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard one search looks: a share of the lists, and how many candidates are compared exactly."""

    share: float
    candidates: int


EFFORTS = (
    Effort(1 / 64, 100),
    Effort(1 / 32, 150),
    Effort(1 / 16, 200),
    Effort(1 / 8, 300),
    Effort(1 / 4, 400),
    Effort(1 / 2, 600),
    Effort(1, 1000),
)
"""From the fastest to the most thorough."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of an index: its recall@10 with `effort`, over how many queries, and when that was."""

    effort: Effort
    recall: float = 0.0
    queries: int = 0
    built_at: str = ""


class ApproximateIndex:
    """Inverted lists of RaBitQ codes under ids. Once made it is not changed; many threads may search it.

    RaBitQ (Gao and Long, 2024, https://arxiv.org/abs/2405.12497): the signs of a rotated vector relative to
    its list's centre, and two numbers that correct the estimated product.
    """

    def __init__(self, index: Any, ids: Ids, trained_on: int, measured: Measured) -> None:
        """`index` is FAISS's, and holds the sorted `ids`; it was trained when there were `trained_on`."""
        self._index, self.ids, self.trained_on, self.measured = index, ids, trained_on, measured
        self._lists = int(faiss.extract_index_ivf(index).nlist)
        self._later: tuple[ExactIndex | None, Ids] = (None, ids[:0])

    @classmethod
    def build(cls, exact: ExactIndex, cancelled: Asked = lambda: False) -> ApproximateIndex:
        """An index of all that `exact` holds, to be measured yet. Raises `Cancelled`."""
        index = _trained(exact, cancelled)
        for ids, vectors in exact.chunks():
            stop_if(cancelled)
            index.add_with_ids(vectors, ids)
        return cls(index, exact.ids, len(exact), Measured(EFFORTS[-1]))

    def joined_by(self, exact: ExactIndex, cancelled: Asked = lambda: False) -> ApproximateIndex:
        """One that has what `exact` gained as well, to be measured yet. Raises `Cancelled`."""
        index, later = faiss.clone_index(self._index), self.lacks(exact)
        for start in range(0, len(later), _ADDED_AT_ONCE):
            stop_if(cancelled)
            some = later[start : start + _ADDED_AT_ONCE]
            index.add_with_ids(exact.vectors(some), some)
        ids = np.sort(np.concatenate([self.ids, later]))
        return ApproximateIndex(index, ids, self.trained_on, Measured(EFFORTS[-1]))

    def measured_as(self, measured: Measured) -> ApproximateIndex:
        """The same index, of which this is known; it is searched with that effort."""
        return ApproximateIndex(self._index, self.ids, self.trained_on, measured)

    @property
    def name(self) -> str:
        """What people call such an index."""
        return f"IVF{self._lists}+RaBitQ"

    def stored(self) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """The bytes, and what else `read` needs (JSON). FAISS's have no checksum: keep one beside them."""
        ids = self.ids.astype("<i8").view(np.uint8)
        more = {
            "name": self.name,
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
        count, known = int(more["count"]), dict(more["measured"])
        measured = Measured(**known | {"effort": Effort(**known["effort"])})
        ids = np.frombuffer(payload, "<i8", count).astype(np.int64)
        try:
            index = faiss.deserialize_index(np.frombuffer(payload, np.uint8, offset=ids.nbytes))
            return cls(index, ids, int(more["trained_on"]), measured)
        except RuntimeError as error:
            raise VectorCacheDamaged(f"FAISS cannot read the stored index ({error}).") from error

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
        """The ids that a (1, D) query's k best should be among; None where so many are asked for, or so few
        found, that an exact search is the better way.

        The fewer `allowed` there are, the more lists are looked through for them.
        """
        share = 1.0 if allowed is None else len(allowed) / max(1, len(self.ids))
        wanted = max(1, k // 10) * self.measured.effort.candidates
        if wanted * 4 > len(self.ids) * share:
            return None
        found = self._found(query, wanted, share**-0.5, _Selector(allowed, excluded))[0]
        return None if found[-1] < 0 else found

    def _found(self, queries: Vectors, wanted: int, harder: float, selector: _Selector) -> Ids:
        probes = min(self._lists, int(np.ceil(self._lists * self.measured.effort.share * harder)))
        of_lists: Any = faiss.SearchParametersIVF  # their stubs have the C++ signatures
        of_whole: Any = faiss.SearchParametersPreTransform
        parameters = of_whole(index_params=of_lists(nprobe=probes, sel=selector.faiss))
        ids: Ids = self._index.search(queries, wanted, params=parameters)[1]
        return ids


def _trained(exact: ExactIndex, cancelled: Asked) -> Any:
    """An empty index whose lists' centres are k-means' over a sample."""
    dimension, lists = exact.dimension, _lists(len(exact))
    ids = exact.ids
    sample = np.sort(np.random.default_rng(0).permutation(len(ids))[: _TRAINED_ON * lists])
    rotation = faiss.RandomRotationMatrix(dimension, dimension)
    rotation.init(0)
    rows = rotation.apply(exact.vectors(ids[sample]))
    centres: Any = None
    for _ in range(_ROUNDS):
        stop_if(cancelled)
        kmeans = faiss.Kmeans(
            dimension, lists, niter=1, spherical=True, seed=0, max_points_per_centroid=2 * _TRAINED_ON
        )
        kmeans.train(rows, init_centroids=centres)
        centres = kmeans.centroids
    quantizer = faiss.IndexFlatIP(dimension)
    quantizer.add(centres)
    index = faiss.IndexIVFRaBitQFastScan(quantizer, dimension, lists, faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    whole = faiss.IndexPreTransform(rotation, index)
    parts: tuple[Any, ...] = (quantizer, index, rotation)
    for part in parts:  # FAISS frees them with the whole
        part.this.disown()
    index.own_fields = whole.own_fields = True
    return whole


def _lists(count: int) -> int:
    """A power of two, about twice the square root."""
    return int(2 ** max(0, round(np.log2(2 * max(1, count) ** 0.5))))


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
