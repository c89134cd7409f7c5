"""`Catalog`: what anyone may ask the catalogue, at any time, from any thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from vitmae_search.catalog import (
    attributes,
    browse,
    check,
    embeddings,
    marks,
    pair_decisions,
    photos,
    places,
    points,
    roots,
    runs,
    saved_searches,
    spaces,
    tags,
    undo,
)
from vitmae_search.catalog.database import Database, WritableDatabase
from vitmae_search.catalog.databases import open_for_reading
from vitmae_search.catalog.derived_spaces import Projects
from vitmae_search.catalog.embeddings import SpaceVectors
from vitmae_search.catalog.photos import KnownFile
from vitmae_search.catalog.points import Points
from vitmae_search.catalog.schema import PhotoRow
from vitmae_search.catalog.shared_values import SharedValues
from vitmae_search.catalog.tags import Taggable
from vitmae_search.records import (
    AttributeFilter,
    Change,
    Failure,
    GeoBox,
    JobRecord,
    LibraryStatus,
    Marks,
    Photo,
    PhotoKind,
    PhotoOrder,
    PlaceCount,
    Root,
    SavedSearch,
    SearchFilter,
    Space,
    Tag,
    file_of,
)

EVERYTHING = SearchFilter()


class Catalog:
    """A library's catalogue, opened for reading.

    Each call is one short transaction on a connection of its own, so it sees whole batches only and any
    number of threads may call at once. Errors: `LibraryDamaged` where the file is not readable SQLite,
    `StorageError` where the disk or the server refuses, `SpaceError` for a space that is not there.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, folder: Path, address: str | None = None) -> Catalog:
        """Open a catalogue for reading; nothing is created.

        One of an older version is migrated first: a file under the writer's lock.

        Args:
            folder: The library's folder.
            address: Of a PostgreSQL database; None is `<folder>/catalogue.sqlite3`.

        Raises:
            LibraryEmpty: There is no catalogue.
            LibraryDamaged: The file or database is another program's, or cannot be read.
            LibraryTooNew: A newer version wrote it.
            LibraryBusy: It cannot be migrated while another process writes.
            StorageError: It cannot be migrated on this disk, or the server does not answer.
            LibraryError: The address is none, or psycopg is not installed.
        """
        return cls(open_for_reading(Path(folder), address))

    @property
    def folder(self) -> Path:
        """The library's folder."""
        return self._database.folder

    @property
    def address(self) -> str | None:
        """Where the database is, credentials included; None is the file in the folder."""
        return self._database.address

    @property
    def shared_values(self) -> SharedValues | None:
        """What all processes with this catalogue share; None where the catalogue is a file."""
        return None if self.address is None else SharedValues(cast(WritableDatabase, self._database))

    @property
    def replaced(self) -> bool:
        """Whether another file, or none, lies where this one was opened: a backup was put back, say."""
        return self._database.replaced

    @property
    def many_writers(self) -> bool:
        """Whether several processes write to it at a time."""
        return self._database.many_writers

    def close(self) -> None:
        """Close the connections. Later calls raise `LibraryError`."""
        self._database.close()

    # Photos ---------------------------------------------------------------------------------------

    def photo(self, photo_id: int) -> Photo | None:
        """Return the photo with this id, missing or not, or None."""
        with self._database.single_read() as connection:
            return photos.find_one(connection, PhotoRow.photo_id == photo_id)

    def photos(
        self,
        where: SearchFilter = EVERYTHING,
        *,
        offset: int = 0,
        limit: int | None = None,
        missing: bool | None = False,
    ) -> list[Photo]:
        """Return photos that pass the filter, newest first: by the time taken, else by the file's time.

        Args:
            where: The filter.
            offset: Rows to skip.
            limit: Most rows to return; None for all.
            missing: False for photos on disk, True for missing ones, None for both.
        """
        with self._database.read_transaction() as connection:
            return photos.list_photos(connection, where, offset, limit, missing)

    def count_photos(self, where: SearchFilter = EVERYTHING, *, missing: bool | None = False) -> int:
        """Return how many photos `photos` would give without a limit.

        Args:
            where: The filter.
            missing: False for photos on disk, True for missing ones, None for both.
        """
        with self._database.read_transaction() as connection:
            return photos.count(connection, where, missing)

    def browse(
        self, where: SearchFilter, order: PhotoOrder, *, after: int | None = None, limit: int
    ) -> list[Photo]:
        """Return photos on disk that pass the filter, in an order.

        Args:
            where: The filter.
            order: The order.
            after: The id of the last photo of the batch before; None begins at the first photo. Nothing
                follows a photo that is not in the library any more.
            limit: Most photos to return.
        """
        with self._database.read_transaction() as connection:
            return browse.list_batch(connection, where, order, after, limit)

    def count_by(self, kind: PhotoKind, where: SearchFilter = EVERYTHING) -> dict[str, int]:
        """Return how many photos on disk that pass the filter are in each folder, of each month, and so on.

        Folders and months ("2024-03") are in their own order, other kinds begin with the most frequent. A
        folder's number is of the photos in it alone, without its sub-folders.

        Args:
            kind: What the photos are counted by.
            where: The filter.
        """
        name = f"by {kind} {where}"
        return dict(self._database.cached(name, lambda c: browse.count_by(c, kind, where)))

    def has_any(self, kind: PhotoKind) -> bool:
        """Return whether any photo on disk has a "lens", "place", "tag" or "rating", or is a "favourite"."""
        return self._database.cached(f"any {kind}", lambda c: browse.has_any(c, kind))

    def count_places(
        self, where: SearchFilter = EVERYTHING, *, view: GeoBox | None = None, most: int = 5000
    ) -> list[PlaceCount]:
        """Return how many photos on disk that pass the filter were taken at each place.

        Places are rounded, to a thousandth of a degree or more, so that there are few enough.

        Args:
            where: The filter.
            view: Only places in this box.
            most: How many places there may be.
        """

        def count(connection: Connection) -> list[PlaceCount]:
            return places.count_places(connection, photos.filter_conditions(connection, where), view, most)

        return list(self._database.cached(f"places {view} {most} {where}", count))

    def copies(self, content_id: int) -> list[Photo]:
        """Return all photos of a content: those on disk first, then by path."""
        with self._database.single_read() as connection:
            return photos.copies(connection, content_id)

    def content_id(self, digest: str) -> int | None:
        """Return the id of the content with this SHA-256 (hex), or None."""
        with self._database.single_read() as connection:
            return photos.content_id(connection, digest)

    def digests(self) -> set[str]:
        """Return the digests of all contents."""
        with self._database.read_transaction() as connection:
            return photos.digests(connection)

    def contents(self, digests: Sequence[str], space_id: int) -> dict[str, tuple[int, bool, bool]]:
        """Look up digests.

        Args:
            digests: SHA-256 digests, hex.
            space_id: The space.

        Returns:
            For each known digest its content id, whether it has a vector in the space, and whether all that
            this version reads of a photo was read of it.
        """
        with self._database.read_transaction() as connection:
            return photos.contents(connection, digests, space_id)

    def digests_at_hand(self, content_ids: Iterable[int], space_id: int) -> frozenset[str]:
        """Return the digests of those contents that have a vector in a space, and of which all was read.

        Args:
            content_ids: The contents.
            space_id: The space.
        """
        with self._database.read_transaction() as connection:
            return frozenset(photos.digests_at_hand(connection, content_ids, space_id))

    def known_files(self, root: str, space_id: int | None) -> Iterator[KnownFile]:
        """Yield every photo row in a folder, by path, as it was when the iteration began.

        Batches may be recorded meanwhile.

        Args:
            root: The folder.
            space_id: The space that `embedded` is about; None makes it false.
        """
        if not self._database.readers_block_writers():
            with self._database.streaming_transaction() as connection:
                yield from map(photos.to_known_file, photos.known_rows(connection, root, space_id))
            return
        # With a rollback journal a reader blocks the writer, and the caller may be the one who writes.
        with self._database.read_transaction() as connection:
            rows = photos.known_rows(connection, root, space_id).all()
        yield from map(photos.to_known_file, rows)

    def files_at(self, paths: Sequence[str], space_id: int | None) -> dict[str, KnownFile]:
        """Return the photo rows of some paths, missing ones included, by path.

        Args:
            paths: Absolute paths.
            space_id: The space that `embedded` is about; None makes it false.
        """
        with self._database.read_transaction() as connection:
            return photos.files_at(connection, paths, space_id)

    def file_ids(self, root: str) -> Iterator[int]:
        """Yield the id of every photo row in a folder, missing ones included, in no order."""
        with self._database.streaming_transaction() as connection:
            yield from photos.ids_in(connection, root)

    def files_by_id(self, photo_ids: Iterable[int], space_id: int | None) -> list[KnownFile]:
        """Return photo rows, in the order of their paths.

        Args:
            photo_ids: Their ids.
            space_id: The space that `embedded` is about; None makes it false.
        """
        with self._database.read_transaction() as connection:
            return photos.files_by_id(connection, photo_ids, space_id)

    def frames(self, video: str, space_id: int | None) -> list[KnownFile]:
        """Return the rows of a video's frames, missing ones included.

        Args:
            video: The video's path.
            space_id: The space that `embedded` is about; None makes it false.
        """
        with self._database.read_transaction() as connection:
            return photos.frames(connection, video, space_id)

    def failures_at(self, paths: Sequence[str], space_id: int) -> dict[str, Failure]:
        """Return the failures in a space of some files, by path.

        Args:
            paths: Absolute paths.
            space_id: The space.
        """
        with self._database.read_transaction() as connection:
            return photos.failures_at(connection, paths, space_id)

    def video_frames(self, root: str) -> dict[str, list[str]]:
        """Return the paths of the frames on disk in a folder, by their video's path."""
        with self._database.read_transaction() as connection:
            paths = photos.frame_paths(connection, root)
        found: dict[str, list[str]] = {}
        for path in paths:
            found.setdefault(file_of(path), []).append(path)
        return found

    def photos_by_inode(self, inodes: Iterable[int]) -> list[KnownFile]:
        """Return the rows of photos on disk that have one of these inodes, on any device."""
        with self._database.read_transaction() as connection:
            return photos.by_inode(connection, inodes)

    def failures(self, space_id: int | None = None, under: str | None = None) -> list[Failure]:
        """Return files that failed, by path.

        A file without features fails in all spaces that are derived from them.

        Args:
            space_id: The space; None for all, each file once.
            under: Only files inside this folder.
        """
        with self._database.read_transaction() as connection:
            if space_id is not None:
                space_id = spaces.features_id(connection, space_id)
            return photos.failures(connection, space_id, under)

    # Tags -----------------------------------------------------------------------------------------

    def tags(self, content_id: int) -> list[Tag]:
        """Return a content's tags: one classifier after the other, the most confident tag first."""
        with self._database.single_read() as connection:
            return tags.of_content(connection, content_id)

    def tag_counts(self) -> dict[str, int]:
        """Return every tag of photos on disk with its number of photos, most frequent first, then A to Z."""
        return dict(self._database.cached("tags", tags.counts))

    def surest_tags(self) -> dict[int, str]:
        """Return the surest tag of each content that has one."""
        return self._database.cached("surest tags", points.surest_tags)

    def taggable(
        self, classifier_id: int, under: str | None = None, *, again: bool = False
    ) -> list[Taggable]:
        """Return contents with a photo on disk that this classifier has not seen.

        Args:
            classifier_id: The classifier.
            under: Only photos inside this folder, at any depth.
            again: Include contents that this classifier has seen.
        """
        with self._database.read_transaction() as connection:
            return tags.taggable(connection, classifier_id, under, again=again)

    def count_classified(self, classifier_id: int, under: str | None = None) -> int:
        """Count contents with a photo on disk that this classifier has seen.

        Args:
            classifier_id: The classifier.
            under: Only photos inside this folder, at any depth.
        """
        with self._database.read_transaction() as connection:
            return tags.count_tagged(connection, classifier_id, under)

    # What a person says of photos -----------------------------------------------------------------

    def marks(self, digests: Sequence[str]) -> dict[str, Marks]:
        """Return what is said of contents, by digest; those of which nothing is said are left out."""
        with self._database.read_transaction() as connection:
            return marks.of_digests(connection, digests)

    def albums(self) -> dict[str, int]:
        """Return the albums, A to Z, and how many photos on disk each has; copies count once."""
        return dict(self._database.cached("albums", marks.albums))

    def saved_searches(self) -> list[SavedSearch]:
        """Return the saved searches, A to Z."""
        with self._database.read_transaction() as connection:
            return saved_searches.list_all(connection)

    def pair_decisions(self, digests: Sequence[str]) -> dict[tuple[str, str], str]:
        """Return what was decided ("different", "ignored") of pairs of these contents, by sorted digests."""
        with self._database.single_read() as connection:
            return pair_decisions.among(connection, digests)

    def copied_ids(self, space_id: int) -> NDArray[np.int64]:
        """Return embeddings of contents that several photos on disk have: (N,) int64, ascending."""
        with self._database.read_transaction() as connection:
            return photos.fetch_ids(connection, photos.with_copies(space_id))

    def last_change(self) -> Change | None:
        """Return what `CatalogWriter.undo` would undo; None where there is nothing."""
        with self._database.single_read() as connection:
            return undo.last(connection)

    def photo_ids_at(self, paths: Sequence[str]) -> dict[str, int]:
        """Return the ids of the photos at these paths; those of which there is no photo are left out."""
        with self._database.read_transaction() as connection:
            return photos.ids_at(connection, paths)

    # Vectors --------------------------------------------------------------------------------------

    def vector(self, space_id: int, content_id: int) -> NDArray[np.float32] | None:
        """Return the (D,) float32 vector of a content, or None if it has none in this space.

        Args:
            space_id: The space.
            content_id: The content.
        """
        with self._database.read_transaction() as connection:
            return embeddings.of_content(connection, space_id, content_id)

    def vectors(self, space_id: int, embedding_ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (N, D) float32, row i for id i.

        Args:
            space_id: The space.
            embedding_ids: The embeddings.

        Raises:
            SpaceError: The space has no such id.
        """
        with self._database.read_transaction() as connection:
            dimension = spaces.get(connection, space_id).dimension
            return embeddings.of_ids(connection, space_id, dimension, [int(i) for i in embedding_ids])

    def photos_of(self, embedding_ids: Sequence[int] | NDArray[np.int64]) -> dict[int, list[Photo]]:
        """Return for each embedding all its photos: those on disk first, then by path.

        The order is that of `embedding_ids`; deleted ids are left out.
        """
        with self._database.read_transaction() as connection:
            return photos.by_embedding(connection, [int(i) for i in embedding_ids])

    def searchable_ids(self, space_id: int, where: SearchFilter = EVERYTHING) -> NDArray[np.int64]:
        """Return embeddings with at least one photo on disk that passes the filter: (N,) int64, ascending.

        Args:
            space_id: The space.
            where: The filter.
        """

        def read(connection: Connection) -> NDArray[np.int64]:
            statement = photos.with_photo_on_disk(connection, where, space_id)
            found = np.sort(photos.fetch_ids(connection, statement))
            found.flags.writeable = False
            return found

        # The latest one alone is kept: other orders and further hits are asked for with the same filter.
        return self._database.cached(
            "searchable", read, f"{space_id} {where}", self._decided_by(space_id, where)
        )

    def searchable_among(
        self, space_id: int, where: SearchFilter, embedding_ids: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return those of some embeddings that `searchable_ids` has, ascending.

        Args:
            space_id: The space.
            where: The filter.
            embedding_ids: (N,) int64.
        """
        with self._database.read_transaction() as connection:
            conditions = photos.filter_conditions(connection, where)
            found = [
                photos.fetch_ids(connection, photos.among(some, where, space_id, conditions))
                for some in photos.chunks(embedding_ids.tolist())
            ]
        return np.sort(np.concatenate([np.empty(0, np.int64), *found]))

    def attribute_filter(self, where: SearchFilter) -> AttributeFilter | None:
        """Return a filter for vector databases that lets all vectors pass which `where` does, and few others.

        None where only the catalogue knows: for marks, albums, and lists of photos.
        """
        with self._database.read_transaction() as connection:
            return attributes.filter_of(connection, where)

    def points(self, space_id: int, where: SearchFilter = EVERYTHING) -> Points:
        """Return what a map shows: contents with a vector and a photo on disk that passes the filter.

        Args:
            space_id: The space.
            where: The filter.
        """
        return self._database.cached(
            f"points {space_id} {where}",
            lambda c: points.list_points(c, space_id, where),
            decided_by=self._decided_by(space_id, where),
        )

    def _decided_by(self, space_id: int, where: SearchFilter) -> Callable[[Connection], Hashable] | None:
        """What reads the revision of a space, where that decides which vectors pass; None where marks do."""
        if not attributes.are_enough_for(where):
            return None
        return lambda connection: spaces.revision_identity(connection, space_id)

    def hidden_ids(self, space_id: int) -> NDArray[np.int64]:
        """Return embeddings without a photo on disk: (N,) int64, ascending."""
        with self._database.read_transaction() as connection:
            return photos.fetch_ids(connection, photos.without_photo_on_disk(space_id))

    def uncovered_folders(self, space_id: int) -> dict[str, int]:
        """Return folders with photos on disk that the space has no vector of, and how many each has.

        Photos that failed in the space do not count.
        """
        features_id = self.space(space_id).features_id
        counts = self._database.cached(
            f"uncovered {space_id}", lambda c: photos.count_uncovered(c, space_id, features_id)
        )
        return {os.fsdecode(folder): count for folder, count in counts.items()}

    def vector_source(self, space_id: int) -> SpaceVectors:
        """Return the space's vectors in the order of its revisions, for a vector index to catch up from."""
        space = self.space(space_id)
        return SpaceVectors(self._database, space.space_id, space.fingerprint, space.dimension)

    # Spaces ---------------------------------------------------------------------------------------

    def spaces(self) -> list[Space]:
        """Return all spaces, oldest first."""
        return list(self._database.cached("spaces", spaces.list_spaces))

    def space(self, space_id: int) -> Space:
        """Return a space; the `SpaceError` for an unknown one lists those that exist."""
        found = next((space for space in self.spaces() if space.space_id == space_id), None)
        if found is not None:
            return found
        with self._database.read_transaction() as connection:
            return spaces.get(connection, space_id)

    def current_space(self) -> Space | None:
        """Return the space that searches use by default, or None."""
        return next((space for space in self.spaces() if space.current), None)

    def history_identity(self) -> str | None:
        """Return the identity of the current space's revision; None without one that has vectors.

        It is drawn at random and kept for ever, so it names this library, and a moment of its history.
        """
        return self._database.cached("history", spaces.history_identity)

    def is_in_history(self, identity: str) -> bool:
        """Return whether a revision of this library has, or had, an identity that begins so.

        It is not one of another library's, nor one of a future that was lost with a backup put back.
        """
        return self._database.cached(
            "in history", lambda connection: spaces.is_in_history(connection, identity), identity
        )

    def features_space(self, space_id: int) -> Space:
        """Return a space of features; raise `SpaceError` for one that is derived or does not exist."""
        with self._database.read_transaction() as connection:
            return spaces.get_features_space(connection, space_id)

    def derived_spaces(self, space_id: int) -> list[Space]:
        """Return the spaces that are derived from this one, oldest first."""
        with self._database.read_transaction() as connection:
            return spaces.list_children(connection, space_id)

    def space_of(self, fingerprint: str) -> Space | None:
        """Return the space with this fingerprint, or None."""
        with self._database.read_transaction() as connection:
            return spaces.by_fingerprint(connection, fingerprint)

    # The library ----------------------------------------------------------------------------------

    def roots(self) -> list[Root]:
        """Return the folders that were indexed, by path; `photos` counts those on disk inside each."""
        with self._database.read_transaction() as connection:
            return roots.list_roots(connection)

    def runs(self, limit: int = 20) -> list[JobRecord]:
        """Return the latest jobs, newest first. One whose process is gone reads as "interrupted"."""
        with self._database.single_read() as connection:
            return runs.list_latest(connection, limit)

    def run(self, key: str) -> JobRecord | None:
        """Return the job with this key, or None."""
        with self._database.single_read() as connection:
            return runs.find(connection, key)

    def cancel_requested(self, key: str) -> bool:
        """Return whether somebody asked a job to end; see `JobTable.request_cancel`."""
        with self._database.single_read() as connection:
            return runs.cancel_requested(connection, key)

    def status(self) -> LibraryStatus:
        """Return counts; `failed` is of the current space, `photos` are those on disk."""
        folder = os.fspath(self.folder)
        return self._database.cached("status", lambda connection: roots.status(connection, folder))

    def check(self, projects: Projects = MappingProxyType({})) -> list[str]:
        """Return what is wrong with the catalogue, one sentence each; nothing if it is sound.

        Every vector is read. Derived vectors are compared with their features if `projects` has the
        projection, by its digest.
        """
        with self._database.read_transaction() as connection:
            return check.problems(connection, projects)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
