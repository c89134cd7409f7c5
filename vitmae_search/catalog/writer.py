"""`CatalogWriter`: changes of the catalogue. Its file has one writer at a time, PostgreSQL has many."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection, bindparam, delete, select, true, update

from vitmae_search.catalog import (
    attributes,
    claims,
    derived_spaces,
    marks,
    pair_decisions,
    photos,
    relocate,
    roots,
    runs,
    saved_searches,
    server_copy,
    spaces,
    tags,
    undo,
)
from vitmae_search.catalog import check as checks
from vitmae_search.catalog import record_batch as batches
from vitmae_search.catalog.catalog import Catalog
from vitmae_search.catalog.database import WritableDatabase
from vitmae_search.catalog.databases import open_for_writing
from vitmae_search.catalog.derived_spaces import Derivation, Projects
from vitmae_search.catalog.dialects import PathIdentity
from vitmae_search.catalog.photos import KnownFile, chunks
from vitmae_search.catalog.record_batch import Indexed
from vitmae_search.catalog.schema import FailureRow, PhotoRow
from vitmae_search.catalog.tags import Tagged
from vitmae_search.catalog.writable_sqlite import WAIT_SECONDS
from vitmae_search.errors import LibraryDamaged, LibraryError
from vitmae_search.records import Change, Failure, JobRecord, Root, SavedSearch, Space, Stamp

T = TypeVar("T")


class CatalogWriter(Catalog):
    """The catalogue, opened for writing. It can be read as any `Catalog`, also while it writes.

    One process at a time holds a file. Each method that changes something is one transaction: done wholly or,
    after an error or a crash, not at all. Methods may be called from several threads; they take turns.
    """

    def __init__(self, database: WritableDatabase) -> None:
        super().__init__(database)
        self._transaction = database.write_transaction
        self._change = database.change

    @classmethod
    def open_writer(
        cls, folder: Path, address: str | None = None, *, wait: float = WAIT_SECONDS
    ) -> CatalogWriter:
        """Open the catalogue for writing; it is made or migrated if need be.

        A file has one writer at a time, who takes its lock. A PostgreSQL database has any number.

        Args:
            folder: The library's folder; it is made if it does not exist.
            address: Of a PostgreSQL database; None is the file in the folder.
            wait: Seconds to wait for another writer of the file.

        Raises:
            LibraryBusy: Another process holds the lock; the message names it.
            LibraryDamaged: The file or database is another program's, or cannot be read.
            LibraryTooNew: A newer version wrote it.
            StorageError: The folder cannot be written, or the server does not answer.
            LibraryError: The address is none, or psycopg is not installed.
        """
        return cls(open_for_writing(Path(folder), address, wait))

    def add_root(self, path: str, device: int | None) -> Root:
        """Record a folder that the person asked to index; a known one is returned unchanged.

        Args:
            path: Absolute path.
            device: The file system's device number (`st_dev`).
        """
        return self._change(lambda connection: roots.add_root(connection, path, device))

    def set_root(self, root_id: int, *, offline: bool, device: int | None = None) -> None:
        """Record whether a root could be reached.

        Args:
            root_id: The root.
            offline: Whether the root is not reachable now.
            device: The root's device number; None keeps it.
        """
        self._change(lambda connection: roots.update_root(connection, root_id, offline, device))

    def ensure_space(
        self,
        *,
        fingerprint: str,
        plugin: str,
        model: str,
        dimension: int,
        decode: str,
        options: Mapping[str, Any],
        identity: Mapping[str, Any],
        provenance: Mapping[str, Any],
        derivation: Derivation | None = None,
    ) -> Space:
        """Return the space of features with this fingerprint, and make it if there is none.

        The first space becomes the current one. With `derivation` the derived space is returned.

        Args:
            fingerprint: Digest of `identity`.
            plugin: The plugin's name.
            model: The model's name for people.
            dimension: Numbers in a vector.
            decode: The decoding mode.
            options: The plugin's options.
            identity: What the vectors depend on; JSON.
            provenance: How the space was made; JSON.
            derivation: Also make the space that is derived from it, which becomes current in its place.

        Raises:
            SpaceError: A space with this fingerprint has another dimension.
        """
        values = {
            "plugin": plugin,
            "model": model,
            "dimension": dimension,
            "decode": decode,
            "options": dict(options),
            "identity": dict(identity),
            "provenance": dict(provenance),
        }

        def change(connection: Connection) -> Space:
            features = spaces.ensure(connection, fingerprint, values, current_if_first=derivation is None)
            if derivation is None:
                return features
            return derived_spaces.derive_space(connection, features.space_id, derivation)

        return self._change(change)

    def derive_space(self, parent_id: int, derivation: Derivation, *, use: bool = False) -> Space:
        """Return the space of projections of the vectors of `parent_id`, and make it if there is none.

        Its vectors are computed from the stored ones in one transaction. It becomes current if no space is.

        Args:
            parent_id: The space of features.
            derivation: What the new space is.
            use: Make it the current space.

        Raises:
            SpaceError: The parent is derived itself, or does not exist.
        """

        def change(connection: Connection) -> Space:
            made = derived_spaces.derive_space(connection, parent_id, derivation)
            if use:
                spaces.use(connection, made.space_id)
            return spaces.get(connection, made.space_id)

        return self._change(change)

    def record_batch(
        self,
        space_id: int,
        batch: Sequence[Indexed],
        failures: Sequence[Failure] = (),
        projects: Projects = MappingProxyType({}),
    ) -> tuple[Indexed, ...]:
        """Record what was read, in one transaction, and return what could not be recorded.

        A recorded file loses its failure. A failed file gets one, and its photo row is deleted unless the
        file has not changed and has a vector in another space. A content that loses its last photo is
        deleted with its vectors in all spaces. Spaces that are derived from this one get their vectors in
        the same transaction.

        Args:
            space_id: The space of features.
            batch: The photos that were read.
            failures: Files that could not be used.
            projects: The projections of derived spaces, by digest.

        Returns:
            Items that were not recorded: they came without a vector (or metadata) and their content has
            none in this space, because it was deleted since it was looked up. Read and embed them again.

        Raises:
            SpaceError: A vector has another dimension, is not finite or its norm is not 1; the space is
                derived; or a projection is missing.
            ValueError: Two items name one photo_id.
            StorageError: The disk is full.
        """

        def change(connection: Connection) -> tuple[Indexed, ...]:
            space = spaces.features_summary(connection, space_id, locked=True)
            return batches.record(connection, space, batch, failures, projects)

        return self._change(change)

    def mark_missing(self, photo_ids: Sequence[int]) -> None:
        """Mark photos that are not on disk: they keep row and vector, and searches leave them out."""
        self._update_photos(photo_ids, missing=True)

    def mark_unseen(self, rows: Sequence[KnownFile]) -> int:
        """Mark photos whose files a walk did not see, save for those that another run has found since.

        Args:
            rows: The rows, as they were at the walk.

        Returns:
            How many were marked.
        """

        def change(connection: Connection) -> int:
            marked, revisions = 0, dict[int, int]()
            for some in chunks(rows):
                marked += photos.mark_unseen(connection, some)
                attributes.changed(connection, {row.content_id for row in some}, revisions)
            return marked

        return self._change(change)

    def mark_found(self, photo_ids: Sequence[int]) -> None:
        """Mark photos that are on disk again, unchanged."""
        self._update_photos(photo_ids, missing=False)

    def record_stamps(self, stamps: Mapping[int, Stamp]) -> None:
        """Record device, inode and ctime of files with an unchanged content.

        The operating system may have numbered their device anew, or an earlier version did not record them.

        Args:
            stamps: Stamps by photo id.
        """
        rows = [
            {"row": row, "new_device": stamp.device, "new_ctime_ns": stamp.ctime_ns, "new_inode": stamp.inode}
            for row, stamp in stamps.items()
        ]
        values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in ("device", "ctime_ns", "inode")}
        if rows:
            statement = update(PhotoRow).where(PhotoRow.photo_id == bindparam("row")).values(values)
            self._change(lambda connection: connection.execute(statement, rows))

    def remove_photos(self, photo_ids: Sequence[int]) -> None:
        """Delete photos, and contents (with their vectors) that no other photo has."""
        self._change(lambda connection: batches.remove_photos(connection, photo_ids))

    def remove_vectors(self, space_id: int, embedding_ids: Sequence[int]) -> None:
        """Delete vectors, but not their photos: the next index run makes them again.

        Args:
            space_id: The space that they are in.
            embedding_ids: Their ids.
        """
        self._change(lambda connection: checks.delete_with_tombstones(connection, space_id, embedding_ids))

    def remove_missing(self, expected: int | None = None) -> int:
        """Delete the photos that are missing, as `remove_photos` does, and return how many there were.

        Args:
            expected: How many there may be at most; None for any number.

        Raises:
            LibraryError: There are more. Nothing is deleted.
        """

        def change(connection: Connection) -> int:
            missing = select(PhotoRow.photo_id).where(PhotoRow.missing == true())
            photo_ids = connection.execute(missing).scalars().all()
            if expected is not None and len(photo_ids) > expected:
                raise LibraryError(
                    f"Nothing was removed: {len(photo_ids):,} photos are missing now, not {expected:,}. "
                    "Look whether a folder was moved or emptied before you remove them."
                )
            batches.remove_photos(connection, photo_ids)
            return len(photo_ids)

        return self._change(change)

    def forget(self, folder: str) -> int | None:
        """Delete all that is known in a folder: photos and what is said of them, failures, and roots in it.

        Args:
            folder: Absolute path.

        Returns:
            How many photos were deleted, missing ones included; None: nothing in the folder was known.
        """

        def change(connection: Connection) -> int | None:
            inside = select(PhotoRow.photo_id).where(photos.in_folder(folder))
            photo_ids = connection.execute(inside).scalars().all()
            digests = marks.digests_of(connection, photo_ids)
            batches.remove_photos(connection, photo_ids)
            marks.forget(connection, digests)
            known = roots.forget(connection, folder)
            return len(photo_ids) if photo_ids or known else None

        return self._change(change)

    def relocate(self, old: str, new: str) -> int | None:
        """Record all that is known in a folder under another path.

        Args:
            old: Absolute path of the folder that it was.
            new: Absolute path of the folder that it is now.

        Returns:
            How many photos were relocated; None: nothing in the folder was known.

        Raises:
            LibraryError: Something is known in the new folder, or one folder is inside the other.
        """
        return self._change(lambda connection: relocate.relocate(connection, old, new))

    def clear_failures(self, paths: Sequence[str]) -> None:
        """Delete the failures of these files in all spaces: the files are gone from disk."""

        def change(connection: Connection) -> None:
            for some in chunks(os.fsencode(path) for path in paths):
                connection.execute(delete(FailureRow).where(PathIdentity(FailureRow.path).in_(some)))

        self._change(change)

    def claim(self, holder: str, space_id: int, paths: Sequence[str], lease: timedelta) -> set[str]:
        """Claim files for a run that is about to read them, where there are many writers.

        Args:
            holder: The run.
            space_id: The space that they are read for.
            paths: The files.
            lease: How long all claims of the run hold from now on.

        Returns:
            Those that are claimed by no other run whose lease goes on.
        """
        return self._change(lambda connection: claims.claim(connection, holder, space_id, paths, lease))

    def renew_claims(self, holder: str, lease: timedelta) -> None:
        """Let all claims of a run hold for longer.

        Args:
            holder: The run.
            lease: How long from now on.
        """
        self._change(lambda connection: claims.renew(connection, holder, lease))

    def release_claims(self, holder: str, space_id: int, paths: Sequence[str]) -> None:
        """Give up claims of files that were recorded, or will not be read.

        Args:
            holder: The run.
            space_id: The space that they were read for.
            paths: The files.
        """
        self._change(lambda connection: claims.release(connection, holder, space_id, paths))

    def release_all_claims(self, holder: str) -> None:
        """Give up all claims of a run that ends."""
        self._change(lambda connection: claims.release_all(connection, holder))

    def copy_to(self, address: str) -> dict[str, int]:
        """Copy this file's catalogue into an empty database on a server, in one transaction.

        Args:
            address: The database's.

        Returns:
            How many rows each table has.

        Raises:
            LibraryError: The database has a catalogue, or something else.
            StorageError: The server does not answer.
        """
        target = open_for_writing(self.folder, address)
        try:
            with self._database.read_transaction() as source:
                return target.change(
                    lambda connection: server_copy.copy_rows(source, connection, target.name)
                )
        finally:
            target.close()

    def use_space(self, space_id: int) -> None:
        """Make a space the current one; raise `SpaceError` if it does not exist."""
        self._change(lambda connection: spaces.use(connection, space_id))

    def drop_space(self, space_id: int, *, even_current: bool = True) -> None:
        """Delete a space with its vectors and failures.

        If it was current, the newest of the others becomes current, preferably one with the same features.

        Args:
            space_id: The space.
            even_current: Whether it may be the current one.

        Raises:
            SpaceError: It does not exist, other spaces are derived from it, or it is current and may not be.
        """
        self._change(lambda connection: spaces.drop(connection, space_id, even_current=even_current))

    def ensure_classifier(self, *, fingerprint: str, source: str, model: str) -> int:
        """Return the id of the classifier with this fingerprint, and make it if there is none.

        The fingerprint covers all that decides its tags. A classifier from the same `source`, trained anew,
        replaces the earlier one.

        Args:
            fingerprint: The fingerprint, hex.
            source: Where the classifier came from: a path or a name.
            model: The model's name for people.
        """
        return self._change(lambda connection: tags.ensure_classifier(connection, fingerprint, source, model))

    def record_tags(self, classifier_id: int, batch: Sequence[Tagged]) -> None:
        """Record a classifier's tags of some contents, in one transaction.

        They replace the tags of this classifier, or of another one from its source. A content without a tag
        counts as seen; one that was deleted meanwhile is skipped.

        Args:
            classifier_id: The classifier.
            batch: Contents with their tags.

        Raises:
            ValueError: A confidence is outside 0 to 1, or a tag is empty or comes twice.
        """
        self._change(lambda connection: tags.record(connection, classifier_id, batch))

    def mark(self, photo_ids: Sequence[int], values: Mapping[str, Any], text: str) -> int:
        """Say something of photos, and of their copies.

        Args:
            photo_ids: The photos; ids that no photo has are passed over.
            values: Columns of `marks`: "favourite" and "keep" (bool), "rating" (0 to 5).
            text: What the change does, in words, for `last_change`.

        Returns:
            How many contents they are.
        """
        return self._undoable(lambda connection: marks.mark(connection, photo_ids, values, text))

    def add_to_album(self, name: str, photo_ids: Sequence[int], *, make: bool = True) -> int:
        """Put photos into an album, and return how many contents they are.

        Args:
            name: The album.
            photo_ids: The photos.
            make: Make the album if there is none.

        Raises:
            LibraryError: There is no such album, and none is to be made.
        """
        return self._undoable(lambda connection: marks.add_to_album(connection, name, photo_ids, make=make))

    def remove_from_album(self, name: str, photo_ids: Sequence[int]) -> int:
        """Take photos out of an album, and return how many contents they are.

        Args:
            name: The album.
            photo_ids: The photos.

        Raises:
            LibraryError: There is no such album.
        """
        return self._undoable(lambda connection: marks.remove_from_album(connection, name, photo_ids))

    def rename_album(self, name: str, new_name: str) -> None:
        """Give an album another name.

        Args:
            name: The album.
            new_name: Its new name.

        Raises:
            LibraryError: There is no such album, or one of the new name.
        """
        self._undoable(lambda connection: marks.rename_album(connection, name, new_name))

    def delete_album(self, name: str) -> None:
        """Delete an album; raise `LibraryError` if there is none. Its photos stay."""
        self._undoable(lambda connection: marks.delete_album(connection, name))

    def decide_pairs(
        self, photo_id: int, others: Sequence[int], decision: Literal["different", "ignored"], text: str
    ) -> int:
        """Decide what a photo and each of some others are to each other, for good.

        Args:
            photo_id: The photo.
            others: The others.
            decision: That they are different photos, or that they are ignored as near-duplicates.
            text: What the change does, in words, for `last_change`.

        Returns:
            How many pairs of contents they are.
        """
        return self._undoable(
            lambda connection: pair_decisions.decide(connection, photo_id, others, decision, text)
        )

    def save_search(self, search: SavedSearch) -> None:
        """Save a search, in place of another one of its name."""
        self._undoable(lambda connection: saved_searches.save(connection, search))

    def delete_search(self, name: str) -> None:
        """Delete a saved search; raise `LibraryError` if there is none."""
        self._undoable(lambda connection: saved_searches.remove(connection, name))

    def undo(self, expected: Change | None = None) -> str | None:
        """Undo the newest of these changes, and return what it did, in words; None where there is none.

        Args:
            expected: The change that is meant; None for the newest, whichever it is.

        Raises:
            LibraryError: Another change than the expected one is the newest.
        """
        return self._undoable(lambda connection: undo.undo(connection, expected))

    def start_run(self, key: str, kind: str, arguments: Mapping[str, Any]) -> JobRecord:
        """Record that this process began a job; raise `LibraryError` if the key is taken.

        Args:
            key: The job's key.
            kind: The job's kind, such as "index".
            arguments: What the job was started with; JSON.
        """
        return self._change(lambda connection: runs.start_run(connection, key, kind, arguments))

    def update_run(self, key: str, progress: Mapping[str, Any]) -> None:
        """Record a job's progress, and that it is alive.

        Args:
            key: The job's key.
            progress: How far it is; JSON.
        """
        self._change(lambda connection: runs.update_run(connection, key, progress=dict(progress)))

    def beat(self, key: str) -> None:
        """Record that a job is alive."""
        self._change(lambda connection: runs.update_run(connection, key))

    def finish_run(
        self,
        key: str,
        state: Literal["done", "failed", "cancelled", "interrupted"],
        report: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """Record how a job ended.

        Args:
            key: The job's key.
            state: How it ended.
            report: What it came to; JSON.
            error: Why it failed, a sentence.
        """
        values = {
            "state": state,
            "report": None if report is None else dict(report),
            "error": error,
            "ended_at": datetime.now(UTC),
        }
        self._change(lambda connection: runs.update_run(connection, key, **values))

    def repair(self, projects: Projects = MappingProxyType({})) -> list[str]:
        """Mend what `check` finds, and return a sentence for each problem.

        What cannot be trusted is deleted, and the next index run makes it again. Derived vectors are
        computed again at once if `projects` has their projection. If pages of the file itself are damaged,
        nothing is changed and nothing returned.
        """
        try:
            return self._change(lambda connection: checks.repair(connection, projects))
        except LibraryDamaged:
            return []

    def _undoable(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns, in a transaction in which no other such change is made."""

        def change(connection: Connection) -> T:
            undo.lock(connection)
            return work(connection)

        return self._change(change)

    def _update_photos(self, photo_ids: Sequence[int], **values: Any) -> None:
        def change(connection: Connection) -> None:
            for ids in chunks(photo_ids):
                connection.execute(update(PhotoRow).where(PhotoRow.photo_id.in_(ids)).values(values))
            attributes.changed(connection, attributes.contents_of(connection, photo_ids), {})

        self._change(change)
