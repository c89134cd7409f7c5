"""`Catalog`: what anyone may ask the catalogue, at any time, from any thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from vitmae_search.records import Failure, LibraryStatus, Photo, Root, Run, SearchFilter, Space, Stamp

if TYPE_CHECKING:
    from vitmae_search.catalog.sources import SpaceVectors

EVERYTHING = SearchFilter()


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A photo row, as the indexer compares it with the disk.

    `stamp` is what `stat` said when it was last read; `embedded` is true where its content has a vector
    in the space that was asked for.
    """

    photo_id: int
    stamp: Stamp
    content_id: int
    missing: bool
    embedded: bool


class Catalog:
    """A library's catalogue, opened for reading.

    Each call is one short transaction on a connection of its own, so it sees whole batches only and any
    number of threads may call at once. Errors: `LibraryDamaged` where the file is not readable SQLite,
    `StorageError` where the disk refuses, `SpaceError` for a space that is not there.
    """

    def __init__(self, database: Any) -> None:
        self._database = database

    @classmethod
    def open(cls, folder: Path) -> Catalog:
        """Open `<folder>/catalogue.sqlite3` read-only; nothing is created.

        A file of an older version is brought up to date first, through the writer's lock. Raises
        `LibraryEmpty` where there is no file, `LibraryDamaged` for a file that is not ours or not
        readable, `LibraryTooNew`, `LibraryBusy` or `StorageError` where it cannot be brought up to date.
        """
        raise NotImplementedError

    @property
    def folder(self) -> Path:
        """The library's folder."""
        return self._database.folder

    def close(self) -> None:
        """Give the connections back. Using the catalogue afterwards raises `LibraryError`."""
        raise NotImplementedError

    # Photos ---------------------------------------------------------------------------------------

    def photo(self, photo_id: int) -> Photo | None:
        """The photo with this id, missing or not; None where there is none."""
        raise NotImplementedError

    def photo_at(self, path: str) -> Photo | None:
        """The photo with exactly this path; None where there is none."""
        raise NotImplementedError

    def photos(
        self,
        where: SearchFilter = EVERYTHING,
        *,
        offset: int = 0,
        limit: int | None = None,
        missing: bool | None = False,
    ) -> list[Photo]:
        """Photos that pass the filter, newest first (when taken, else when the file changed).

        `missing`: False for those on disk, True for those that are not, None for both.
        """
        raise NotImplementedError

    def count_photos(self, where: SearchFilter = EVERYTHING, *, missing: bool | None = False) -> int:
        """How many `photos` would give without a limit."""
        raise NotImplementedError

    def copies(self, content_id: int) -> list[Photo]:
        """All photos of one content: those on disk first, then by path."""
        raise NotImplementedError

    def content_id(self, digest: str) -> int | None:
        """The content with this SHA-256 in hex; None where it is not known."""
        raise NotImplementedError

    def known_files(self, root: str, space_id: int | None) -> Iterator[KnownFile]:
        """Every photo row under the folder `root`, by path, as it was when the iteration began.

        `embedded` is about `space_id`; with None it is false everywhere. Recording batches meanwhile is
        fine.
        """
        raise NotImplementedError

    def failures(self, space_id: int | None = None, under: str | None = None) -> list[Failure]:
        """Files that failed in a space, by path; of all spaces, each file once, where it is None."""
        raise NotImplementedError

    # Vectors --------------------------------------------------------------------------------------

    def vector(self, space_id: int, content_id: int) -> NDArray[np.float32] | None:
        """The (D,) float32 vector of a content; None where it has none in this space."""
        raise NotImplementedError

    def vectors(self, space_id: int, embedding_ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """(N, D) float32, row i for id i. `SpaceError` where the space has no such id."""
        raise NotImplementedError

    def photos_of(self, embedding_ids: Sequence[int] | NDArray[np.int64]) -> dict[int, list[Photo]]:
        """For each embedding all its photos: those on disk first, then by path.

        In the order of `embedding_ids`; an id that has been deleted is left out.
        """
        raise NotImplementedError

    def searchable_ids(self, space_id: int, where: SearchFilter = EVERYTHING) -> NDArray[np.int64]:
        """(N,) int64, ascending: embeddings with at least one photo on disk that passes the filter."""
        raise NotImplementedError

    def hidden_ids(self, space_id: int) -> NDArray[np.int64]:
        """(N,) int64, ascending: embeddings with no photo on disk."""
        raise NotImplementedError

    def vector_source(self, space_id: int) -> SpaceVectors:
        """The space's vectors in the order of its revisions, for an index to catch up from."""
        raise NotImplementedError

    # Spaces ---------------------------------------------------------------------------------------

    def spaces(self) -> list[Space]:
        """All spaces, oldest first."""
        raise NotImplementedError

    def space(self, space_id: int) -> Space:
        """One space. `SpaceError` says which there are."""
        raise NotImplementedError

    def current_space(self) -> Space | None:
        """The space that searches use unless told otherwise; None where there is no space."""
        raise NotImplementedError

    def space_of(self, fingerprint: str) -> Space | None:
        """The space with this fingerprint; None where there is none."""
        raise NotImplementedError

    # The library ----------------------------------------------------------------------------------

    def roots(self) -> list[Root]:
        """The folders that were indexed, by path; `photos` counts those on disk under each."""
        raise NotImplementedError

    def runs(self, limit: int = 20) -> list[Run]:
        """The latest long jobs, newest first. One whose process is gone reads as "interrupted"."""
        raise NotImplementedError

    def run(self, key: str) -> Run | None:
        """The job with this key; None where there is none."""
        raise NotImplementedError

    def status(self) -> LibraryStatus:
        """Counts; `failed` is of the current space, and `photos` are those on disk."""
        raise NotImplementedError

    def check(self) -> list[str]:
        """What is wrong with the catalogue, in sentences; empty where it is sound. Reads every vector."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
