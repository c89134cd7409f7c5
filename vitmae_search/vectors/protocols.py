"""What the rest of the application needs of vector indexes: a small set of verbs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

Asked = Callable[[], bool]
"""Whether to give up what is being done."""


def never() -> bool:
    """Nobody asks to give up."""
    return False


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What one query found, best first: `ids` (m,) int64 and `scores` (m,) float32, cosine, m ≤ k."""

    ids: Ids
    scores: Vectors

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Policy:
    """When a space gets an approximate index, and which one is good enough.

    An exact search that takes no more than `exact_seconds` stays. An approximate index is searched if its
    recall@10 is at least `recall`, over `queries` stored vectors to which noise of length `noise` was added
    (0.5: a cosine of 0.89 to where they were). Vectors that it lacks are searched exactly, beside it, until
    they are the share `added` of all; then they join it and it is measured again. It is made anew once
    half of what it holds joined later or is gone.
    """

    exact_seconds: float = 0.005
    recall: float = 0.995
    queries: int = 500
    noise: float = 0.5
    added: float = 0.01

    def wants_faster(self, seconds: float, dimension: int) -> bool:
        """Whether an exact search that takes so long is too slow. One number a vector has no codes."""
        return seconds > self.exact_seconds and dimension > 1


class VectorIndex(Protocol):
    """Vectors of unit length under ids ≥ 0, to search. Many threads may search at once."""

    def __len__(self) -> int: ...

    def search(
        self, queries: Vectors, k: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> list[Matches]:
        """The k best of each of (Q, D) queries: highest score first, the smaller id first in a tie.

        `allowed` keeps to these ids, `excluded` leaves these out. Fewer than k are returned where
        there are fewer. Raises `VectorIndexError` for queries that are not float32 of D, or k below 1.
        """
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

    def stored(self, ids: Ids) -> tuple[Ids, Vectors]:
        """Those of `ids` that are still there, and their (n, D) vectors, row by row."""
        ...
