import copy
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from vitmae_search.records import VectorAttributes


def unit_vectors(count: int, dimension: int, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def unit() -> Callable[..., NDArray[np.float32]]:
    return unit_vectors


_IDENTITIES = itertools.count()


class MemorySource:
    """The truth, as the catalogue would keep it: rows and tombstones with their revisions."""

    def __init__(self, dimension: int = 4, key: str = "space") -> None:
        self.key = key
        self.identities = {0: ""}
        self.dimension = dimension
        self.rows: dict[int, tuple[int, NDArray[np.float32]]] = {}
        self.tombstones: dict[int, int] = {}
        self.last = 0
        self.next_id = 1
        self.reads: list[int] = []
        self.given: dict[int, VectorAttributes] = {}
        self.given_at: dict[int, int] = {}

    def add(self, vectors: NDArray[np.float32]) -> list[int]:
        ids = list(range(self.next_id, self.next_id + len(vectors)))
        self.next_id += len(vectors)
        self.rows |= {i: (self.last + 1, v) for i, v in zip(ids, vectors, strict=True)}
        self._next_revision()
        return ids

    def remove(self, ids: list[int]) -> None:
        for i in ids:
            del self.rows[i]
            self.tombstones[i] = self.last + 1
        self._next_revision()

    def _next_revision(self) -> None:
        self.last += 1
        self.identities[self.last] = f"change {next(_IDENTITIES)} of all sources"

    def restore(self, backup: "MemorySource") -> None:
        """Become what `backup`, a deep copy made earlier, was."""
        self.__dict__ |= copy.deepcopy(backup.__dict__)

    def revision(self) -> int:
        return self.last

    def revision_identity(self, revision: int) -> str | None:
        return self.identities.get(revision)

    def count_added_since(self, revision: int) -> int:
        return sum(r > revision for r, _ in self.rows.values())

    def added_since(self, revision: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        self.reads.append(revision)
        ids = [i for i, (r, _) in list(self.rows.items()) if r > revision]
        for start in range(0, len(ids), 7):
            some = ids[start : start + 7]
            yield np.array(some, np.int64), np.array([self.rows[i][1] for i in some], np.float32)

    def removed_since(self, revision: int) -> NDArray[np.int64]:
        return np.array([i for i, r in self.tombstones.items() if r > revision], np.int64)

    def stored(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        here = [i for i in ids.tolist() if i in self.rows]
        vectors = np.array([self.rows[i][1] for i in here], np.float32).reshape(-1, self.dimension)
        return np.array(here, np.int64), vectors

    def give(self, attributes: dict[int, VectorAttributes]) -> None:
        """Change what filters ask of some vectors."""
        self.given |= attributes
        self.given_at |= dict.fromkeys(attributes, self.last + 1)
        self._next_revision()

    def attributes_changed_since(self, revision: int) -> Iterator[NDArray[np.int64]]:
        yield np.array([i for i, r in self.given_at.items() if r > revision], np.int64)

    def attributes(self, ids: NDArray[np.int64]) -> list[VectorAttributes]:
        return [self.given.get(i, VectorAttributes()) for i in ids.tolist()]


@pytest.fixture
def source() -> MemorySource:
    made = MemorySource()
    for batch in range(3):
        made.add(unit_vectors(10, 4, seed=batch))
    made.remove([2, 15])
    return made


@pytest.fixture
def new_source() -> Callable[..., MemorySource]:
    return MemorySource
