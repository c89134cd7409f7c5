"""What the rest of the application needs of vector indexes: a small set of verbs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What one query found, best first: `ids` (m,) int64 and `scores` (m,) float32, cosine, m ≤ k."""

    ids: Ids
    scores: Vectors

    def __len__(self) -> int:
        return len(self.ids)


class VectorIndex(Protocol):
    """Vectors of unit length under ids ≥ 0 that are each used once.

    Searching is safe in many threads at once; adding and removing are not, and not beside a search.
    """

    @property
    def dimension(self) -> int: ...

    def __len__(self) -> int: ...

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Add (N,) ids with (N, D) vectors. All or none: `VectorIndexError` for what does not fit."""
        ...

    def remove(self, ids: Ids) -> int:
        """Remove the ids that are there, and say how many they were."""
        ...

    def search(
        self, queries: Vectors, k: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> list[Matches]:
        """The k best of each of (Q, D) queries: highest score first, the smaller id first in a tie.

        `allowed` keeps to these ids, `excluded` leaves these out. Fewer than k are returned where
        there are fewer.
        """
        ...

    def contains(self, ids: Ids) -> NDArray[np.bool_]:
        """Which of (N,) ids are there."""
        ...

    def vectors(self, ids: Ids) -> Vectors:
        """The (N, D) vectors of ids that are all there; `VectorIndexError` otherwise."""
        ...


class VectorSource(Protocol):
    """Where the vectors of one space truly are, in the order of its revisions.

    `key` names the space (its fingerprint). `history` tells it from a space of the same key in another
    catalogue (when it was made, say): ids and revisions of the two have nothing in common. A revision
    is a number that only goes up.
    """

    @property
    def key(self) -> str: ...

    @property
    def history(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def revision(self) -> int:
        """The revision of the last change."""
        ...

    def added_since(self, revision: int) -> Iterator[tuple[Ids, Vectors]]:
        """What was added after `revision` and is still there: chunks of (n,) ids and (n, D) vectors."""
        ...

    def removed_since(self, revision: int) -> Ids:
        """The ids that were removed after `revision`."""
        ...
