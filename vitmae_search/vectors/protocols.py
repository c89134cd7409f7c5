"""The interface of vector indexes and of the sources that they are built from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vitmae_search.records import AttributeFilter, VectorAttributes

Ids = NDArray[np.int64]
Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

IsCancelled = Callable[[], bool]
"""Asked again and again during long work: True means stop."""


def never_cancel() -> bool:
    """The default `IsCancelled`: go on to the end."""
    return False


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """The result of one query, best first.

    Attributes:
        ids: (m,) int64, m ≤ k.
        scores: (m,) float32, cosine similarity in [-1, 1].
    """

    ids: Ids
    scores: Vectors

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Policy:
    """When a space gets an approximate index, and which one is good enough.

    Attributes:
        exact_seconds: An exact search that takes no longer than this stays exact.
        recall: The least recall@10 with which an approximate index is searched, 0 to 1.
        queries: Number of queries that recall is measured with: stored vectors with noise added.
        noise: Length of that noise, before the vector is scaled to unit length again; 0.5 turns a
            vector by a cosine of 0.89.
        added: Vectors that the approximate index lacks are searched exactly beside it, until they are this
            share of all; then they are added to it, and its recall is measured again. It is rebuilt once
            half of what it holds was added later or has been removed.
    """

    exact_seconds: float = 0.005
    recall: float = 0.995
    queries: int = 500
    noise: float = 0.5
    added: float = 0.01

    def wants_faster(self, seconds: float, dimension: int) -> bool:
        """Return whether an exact search is too slow.

        Args:
            seconds: Time of one exact search.
            dimension: Numbers in a vector; with one number there are no codes to build.
        """
        return seconds > self.exact_seconds and dimension > 1


class VectorIndex(Protocol):
    """Unit vectors under ids ≥ 0 that can be searched. Many threads may search at once."""

    def __len__(self) -> int: ...

    def search(
        self, queries: Vectors, k: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> list[Matches]:
        """Find the k nearest vectors of each query.

        Args:
            queries: (Q, D) float32.
            k: Most matches of one query, at least 1.
            allowed: Search these ids only.
            excluded: Leave these ids out.

        Returns:
            One `Matches` for each query: highest score first, the smaller id first in a tie.

        Raises:
            VectorIndexError: The queries are not float32 of D, or k is below 1.
        """
        ...


@runtime_checkable
class FilteringIndex(VectorIndex, Protocol):
    """A vector index that filters by attributes of the vectors: a list of ids would grow with the library."""

    def search_where(
        self, queries: Vectors, k: int, where: AttributeFilter, passing: Callable[[Ids], Ids]
    ) -> list[Matches]:
        """Find the k nearest vectors that pass a filter, as `search` does.

        Args:
            queries: (Q, D) float32.
            k: Most matches of one query, at least 1.
            where: All vectors pass it that should, and some that should not.
            passing: Returns those of a few ids that pass indeed, ascending.
        """
        ...


class VectorSource(Protocol):
    """The authoritative vectors of one space, with a revision for each change of them or of their attributes.

    A revision has a number, which only goes up, so that an index at revision r catches up from what changed
    after r; and an identity, which no revision of another history has, such as that of a catalogue which was
    put back from a backup and changed differently.
    """

    @property
    def key(self) -> str:
        """The space's fingerprint."""
        ...

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        ...

    def revision(self) -> int:
        """Return the revision of the last change."""
        ...

    def revision_identity(self, revision: int) -> str | None:
        """Return the identity of a revision; "" for 0, which has no vectors, and None if it never was."""
        ...

    def count_added_since(self, revision: int) -> int:
        """Return how many vectors `added_since` yields."""
        ...

    def added_since(self, revision: int) -> Iterator[tuple[Ids, Vectors]]:
        """Yield what was added after `revision` and is still stored, as (n,) ids and (n, D) vectors."""
        ...

    def removed_since(self, revision: int) -> Ids:
        """Return the ids that were removed after `revision`."""
        ...

    def stored(self, ids: Ids) -> tuple[Ids, Vectors]:
        """Return those of `ids` that are still stored, and their (n, D) vectors, row by row."""
        ...

    def attributes(self, ids: Ids) -> list[VectorAttributes]:
        """Return what filters may ask of vectors, one by one."""
        ...

    def attributes_changed_since(self, revision: int) -> Iterator[Ids]:
        """Yield ids of vectors whose attributes changed after `revision`, and perhaps some more."""
        ...
