"""One space's index as it is searched: the exact one, an approximate one before it where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vitmae_search.vectors.exact import ExactIndex, among_sorted, check_queries, ordered, sorted_ids
from vitmae_search.vectors.protocols import Ids, Matches, Vectors, VectorSource

if TYPE_CHECKING:  # FAISS is loaded where there is something for it to search
    from vitmae_search.vectors.approximate import ApproximateIndex

GATHERED_BYTES = 8 << 20
"""A filter that leaves no more to compare is searched exactly: 2,700 vectors of 768, about 1.5 ms."""


class SpaceIndex:
    """Finds with what is there, and scores by the source's own vectors.

    With an approximate index, a search is an exact one among what that proposes and what it does not hold
    yet. Whatever it proposes, and whatever lies in a damaged file, scores and order are the truth's.
    """

    def __init__(
        self, exact: ExactIndex, approximate: ApproximateIndex | None, source: VectorSource | None = None
    ) -> None:
        """Without a `source` scores are those of `exact`."""
        self.exact, self.approximate, self._source = exact, approximate, source

    def __len__(self) -> int:
        return len(self.exact)

    def search(
        self, queries: Vectors, k: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> list[Matches]:
        """The k best of each of (Q, D) float32 queries; see `VectorIndex.search`."""
        check_queries(queries, k, self.exact.dimension)
        if allowed is not None:
            allowed = sorted_ids(allowed)
        if self.approximate is None or self._few(allowed):
            found = self.exact.search(queries, k, allowed=allowed, excluded=excluded)
        else:
            found = [self._near(self.approximate, query[None], k, allowed, excluded) for query in queries]
        return [self._true(query, one, k) for query, one in zip(queries, found, strict=True)]

    def _few(self, allowed: Ids | None) -> bool:
        return allowed is not None and len(allowed) * self.exact.dimension * 4 <= GATHERED_BYTES

    def _near(
        self,
        approximate: ApproximateIndex,
        query: Vectors,
        k: int,
        allowed: Ids | None,
        excluded: Ids | None,
    ) -> Matches:
        proposed = approximate.propose(query, k, allowed=allowed, excluded=excluded)
        if proposed is None:
            return self.exact.search(query, k, allowed=allowed, excluded=excluded)[0]
        later = approximate.lacks(self.exact)
        if allowed is not None:
            later = later[among_sorted(later, allowed)]
        among = np.concatenate([proposed, later])
        return self.exact.search(query, k, allowed=among, excluded=excluded)[0]

    def _true(self, query: Vectors, found: Matches, k: int) -> Matches:
        if self._source is None:
            return found
        return ordered(*self._source.stored(found.ids), query, k)
