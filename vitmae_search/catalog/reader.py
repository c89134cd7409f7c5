"""`Catalog`: what anyone may ask the catalogue, at any time, from any thread."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vitmae_search.catalog import check, embeddings, photos, roots, runs, spaces, tags
from vitmae_search.catalog.database import Database, catalogue_file
from vitmae_search.catalog.derived_spaces import Projects
from vitmae_search.catalog.embeddings import SpaceVectors
from vitmae_search.catalog.migrations import NEWEST, version_of
from vitmae_search.catalog.photos import KnownFile
from vitmae_search.catalog.schema import PhotoRow
from vitmae_search.catalog.tags import Taggable
from vitmae_search.catalog.writable_database import WritableDatabase
from vitmae_search.errors import LibraryBusy, LibraryEmpty, StorageError, display_path
from vitmae_search.records import Failure, LibraryStatus, Photo, Root, Run, SearchFilter, Space, Tag

EVERYTHING = SearchFilter()


class Catalog:
    """A library's catalogue, opened for reading.

    Each call is one short transaction on a connection of its own, so it sees whole batches only and any
    number of threads may call at once. Errors: `LibraryDamaged` where the file is not readable SQLite,
    `StorageError` where the disk refuses, `SpaceError` for a space that is not there.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, folder: Path) -> Catalog:
        """Open `<folder>/catalogue.sqlite3` read-only; nothing is created.

        A file of an older version is brought up to date first, through the writer's lock. Raises
        `LibraryEmpty` where there is no file, `LibraryDamaged` for a file that is not ours or not
        readable, `LibraryTooNew`, `LibraryBusy` or `StorageError` where it cannot be brought up to date.
        """
        folder = Path(folder)
        if cls._needs_migration(folder):
            try:
                # Only the holder of the lock may change the file, its form included.
                WritableDatabase(folder).close()
            except LibraryBusy:
                # A writer does so before all else; then it may keep the lock for hours.
                if cls._needs_migration(folder):
                    raise
        return cls(Database(folder))

    @staticmethod
    def _needs_migration(folder: Path) -> bool:
        try:
            catalogue_file(folder).stat()
        except (FileNotFoundError, NotADirectoryError):
            raise LibraryEmpty(_nothing_in(folder)) from None
        except OSError as error:
            raise StorageError(f"{display_path(folder)} cannot be read: {error.strerror}.") from error
        database = Database(folder)
        try:
            with database.reading() as connection:
                version = version_of(connection, database.name)
        finally:
            database.close()
        if version == 0:  # its first writer has not got that far
            raise LibraryEmpty(_nothing_in(folder))
        return version < NEWEST

    @property
    def folder(self) -> Path:
        """The library's folder."""
        return self._database.folder

    @property
    def replaced(self) -> bool:
        """Whether another file, or none, lies where this one was opened: a backup was put back, say."""
        return self._database.replaced

    def close(self) -> None:
        """Give the connections back. Using the catalogue afterwards raises `LibraryError`."""
        self._database.close()

    # Photos ---------------------------------------------------------------------------------------

    def photo(self, photo_id: int) -> Photo | None:
        """The photo with this id, missing or not; None where there is none."""
        with self._database.reading() as connection:
            return photos.one(connection, PhotoRow.photo_id == photo_id)

    def photo_at(self, path: str) -> Photo | None:
        """The photo with exactly this path; None where there is none."""
        with self._database.reading() as connection:
            return photos.one(connection, PhotoRow.path == os.fsencode(path))

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
        with self._database.reading() as connection:
            return photos.listing(connection, where, offset, limit, missing)

    def count_photos(self, where: SearchFilter = EVERYTHING, *, missing: bool | None = False) -> int:
        """How many `photos` would give without a limit."""
        with self._database.reading() as connection:
            return photos.count(connection, where, missing)

    def copies(self, content_id: int) -> list[Photo]:
        """All photos of one content: those on disk first, then by path."""
        with self._database.reading() as connection:
            return photos.copies(connection, content_id)

    def content_id(self, digest: str) -> int | None:
        """The content with this SHA-256 in hex; None where it is not known."""
        with self._database.reading() as connection:
            return photos.content_id(connection, digest)

    def contents(self, digests: Sequence[str], space_id: int) -> dict[str, tuple[int, bool]]:
        """Of the digests that are known: the content's id, and whether it has a vector in that space."""
        with self._database.reading() as connection:
            return photos.contents(connection, digests, space_id)

    def known_files(self, root: str, space_id: int | None) -> Iterator[KnownFile]:
        """Every photo row under the folder `root`, by path, as it was when the iteration began.

        `embedded` is about `space_id`; with None it is false everywhere. Recording batches meanwhile is
        fine.
        """
        with self._database.streaming() as connection:
            if self._database.logs_ahead(connection):
                yield from map(photos.as_known, photos.known_rows(connection, root, space_id))
                return
        # With a rollback journal a reader holds up the writer, which may be the one who asks.
        with self._database.reading() as connection:
            rows = photos.known_rows(connection, root, space_id).all()
        yield from map(photos.as_known, rows)

    def failures(self, space_id: int | None = None, under: str | None = None) -> list[Failure]:
        """Files that failed in a space, by path; of all spaces, each file once, where it is None.

        A file without features fails in all spaces that are derived from them.
        """
        with self._database.reading() as connection:
            if space_id is not None:
                space_id = spaces.features_id(connection, space_id)
            return photos.failures(connection, space_id, under)

    # Tags -----------------------------------------------------------------------------------------

    def tags(self, content_id: int) -> list[Tag]:
        """What classifiers say of a content: one classifier after the other, each with its surest first."""
        with self._database.reading() as connection:
            return tags.of_content(connection, content_id)

    def tag_counts(self) -> dict[str, int]:
        """Every tag of a photo on disk, and how many photos have it: the most frequent first, then A to Z."""
        return dict(self._database.remembered("tags", tags.counts))

    def taggable(
        self, classifier_id: int, under: str | None = None, *, again: bool = False
    ) -> list[Taggable]:
        """Contents with a photo on disk (in `under`) that this classifier has not seen; or all, `again`."""
        with self._database.reading() as connection:
            return tags.taggable(connection, classifier_id, under, seen=again)

    def count_classified(self, classifier_id: int, under: str | None = None) -> int:
        """How many contents with a photo on disk (in `under`) this classifier has seen."""
        with self._database.reading() as connection:
            return tags.count_tagged(connection, classifier_id, under)

    # Vectors --------------------------------------------------------------------------------------

    def vector(self, space_id: int, content_id: int) -> NDArray[np.float32] | None:
        """The (D,) float32 vector of a content; None where it has none in this space."""
        with self._database.reading() as connection:
            return embeddings.of_content(connection, space_id, content_id)

    def vectors(self, space_id: int, embedding_ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """(N, D) float32, row i for id i. `SpaceError` where the space has no such id."""
        with self._database.reading() as connection:
            dimension = spaces.one(connection, space_id).dimension
            return embeddings.of_ids(connection, space_id, dimension, [int(i) for i in embedding_ids])

    def photos_of(self, embedding_ids: Sequence[int] | NDArray[np.int64]) -> dict[int, list[Photo]]:
        """For each embedding all its photos: those on disk first, then by path.

        In the order of `embedding_ids`; an id that has been deleted is left out.
        """
        with self._database.reading() as connection:
            return photos.of_embeddings(connection, [int(i) for i in embedding_ids])

    def searchable_ids(self, space_id: int, where: SearchFilter = EVERYTHING) -> NDArray[np.int64]:
        """(N,) int64, ascending: embeddings with at least one photo on disk that passes the filter."""
        with self._database.reading() as connection:
            statement = photos.searchable(where, space_id, photos.passing(connection, where))
            return photos.ids(connection, statement)

    def hidden_ids(self, space_id: int) -> NDArray[np.int64]:
        """(N,) int64, ascending: embeddings with no photo on disk."""
        with self._database.reading() as connection:
            return photos.ids(connection, photos.hidden(space_id))

    def vector_source(self, space_id: int) -> SpaceVectors:
        """The space's vectors in the order of its revisions, for an index to catch up from."""
        space = self.space(space_id)
        return SpaceVectors(self._database, space.space_id, space.fingerprint, space.dimension)

    # Spaces ---------------------------------------------------------------------------------------

    def spaces(self) -> list[Space]:
        """All spaces, oldest first."""
        return list(self._database.remembered("spaces", spaces.listing))

    def space(self, space_id: int) -> Space:
        """One space. `SpaceError` says which there are."""
        found = next((space for space in self.spaces() if space.space_id == space_id), None)
        if found is not None:
            return found
        with self._database.reading() as connection:
            return spaces.one(connection, space_id)

    def current_space(self) -> Space | None:
        """The space that searches use unless told otherwise; None where there is no space."""
        return next((space for space in self.spaces() if space.current), None)

    def features_space(self, space_id: int) -> Space:
        """One space of features. `SpaceError` for one that is derived, or not there."""
        with self._database.reading() as connection:
            return spaces.of_features(connection, space_id)

    def derived_spaces(self, space_id: int) -> list[Space]:
        """The spaces that are derived from this one, oldest first."""
        with self._database.reading() as connection:
            return spaces.children(connection, space_id)

    def space_of(self, fingerprint: str) -> Space | None:
        """The space with this fingerprint; None where there is none."""
        with self._database.reading() as connection:
            return spaces.of_fingerprint(connection, fingerprint)

    # The library ----------------------------------------------------------------------------------

    def roots(self) -> list[Root]:
        """The folders that were indexed, by path; `photos` counts those on disk under each."""
        with self._database.reading() as connection:
            return roots.listing(connection)

    def runs(self, limit: int = 20) -> list[Run]:
        """The latest long jobs, newest first. One whose process is gone reads as "interrupted"."""
        with self._database.reading() as connection:
            return runs.latest(connection, limit)

    def run(self, key: str) -> Run | None:
        """The job with this key; None where there is none."""
        with self._database.reading() as connection:
            return runs.one(connection, key)

    def status(self) -> LibraryStatus:
        """Counts; `failed` is of the current space, and `photos` are those on disk."""
        folder = os.fspath(self.folder)
        return self._database.remembered("status", lambda connection: roots.status(connection, folder))

    def check(self, projects: Projects = MappingProxyType({})) -> list[str]:
        """What is wrong with the catalogue, in sentences; empty where it is sound. Reads every vector.

        Derived vectors are compared with their features where `projects` has the projection, by its digest.
        """
        with self._database.reading() as connection:
            return check.problems(connection, projects)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _nothing_in(folder: Path) -> str:
    return (
        f"{display_path(folder)} has no photos yet. Index a folder first: vitmae-search index FOLDER, or "
        "choose another library with --library."
    )
