"""`SpaceIndex`: one space's index as it is searched, exact or approximate and then exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vitmae_search.vectors.exact import ExactIndex, check_queries, isin_sorted, sorted_ids, top_k
from vitmae_search.vectors.protocols import Ids, Matches, Vectors, VectorSource

if TYPE_CHECKING:  # FAISS is only loaded when there is an approximate index to search
    from vitmae_search.vectors.approximate import ApproximateIndex

EXACT_FILTER_ROWS, EXACT_FILTER_SHARE = 3000, 1 / 500
"""A filter that leaves so many vectors, or this share of all, is searched exactly: to read one from the file
takes 1.2 µs, and all codes of a million 3 to 5 ms."""


class SpaceIndex:
    """Searches in two stages: candidates from an index, scores from the source's own vectors.

    With an approximate index, an exact search runs over its candidates and over the vectors that it does not
    hold yet. The final scores and their order come from the source, so neither an approximation nor a
    damaged file can change them.
    """

    def __init__(
        self, exact: ExactIndex, approximate: ApproximateIndex | None, source: VectorSource | None = None
    ) -> None:
        """Combine the parts.

        Args:
            exact: All vectors of the space.
            approximate: Finds candidates faster, if there is one.
            source: Where the vectors that give the scores come from; None takes those of `exact`.
        """
        self.exact, self.approximate, self._source = exact, approximate, source

    def __len__(self) -> int:
        return len(self.exact)

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
        check_queries(queries, k, self.exact.dimension)
        if allowed is not None:
            allowed = sorted_ids(allowed)
        if self.approximate is None or self._is_small(allowed):
            found = self.exact.search(queries, k, allowed=allowed, excluded=excluded)
        else:
            found = self._search_approximate(self.approximate, queries, k, allowed, excluded)
        return self._rescore(queries, found, k)

    def _is_small(self, allowed: Ids | None) -> bool:
        return allowed is not None and len(allowed) <= max(
            EXACT_FILTER_ROWS, EXACT_FILTER_SHARE * len(self.exact)
        )

    def _search_approximate(
        self,
        approximate: ApproximateIndex,
        queries: Vectors,
        k: int,
        allowed: Ids | None,
        excluded: Ids | None,
    ) -> list[Matches]:
        added = approximate.missing_ids(self.exact)
        if allowed is not None:
            added = added[isin_sorted(added, allowed)]
        proposed = approximate.candidates(queries, k, allowed=allowed, excluded=excluded)
        among = [allowed if ids is None else np.concatenate([ids, added]) for ids in proposed]
        return [
            self.exact.search(query[None], k, allowed=ids, excluded=excluded)[0]
            for query, ids in zip(queries, among, strict=True)
        ]

    def _rescore(self, queries: Vectors, found: list[Matches], k: int) -> list[Matches]:
        """Score matches by the source's vectors, which are read once for all queries."""
        if self._source is None or not found:
            return found
        ids, vectors = self._source.stored(sorted_ids(np.concatenate([matches.ids for matches in found])))
        rows = [np.flatnonzero(isin_sorted(ids, np.sort(matches.ids))) for matches in found]
        return [top_k(ids[own], vectors[own], query, k) for own, query in zip(rows, queries, strict=True)]
