"""`CatalogWriter`: the one process that may change the catalogue."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from sqlalchemy import delete, update

from vitmae_search.catalog import check as checks
from vitmae_search.catalog import derived_spaces, roots, runs, spaces, tags
from vitmae_search.catalog import record_batch as batches
from vitmae_search.catalog.derived_spaces import Derivation, Projects
from vitmae_search.catalog.photos import chunks
from vitmae_search.catalog.reader import Catalog
from vitmae_search.catalog.record_batch import Indexed
from vitmae_search.catalog.schema import FailureRow, PhotoRow
from vitmae_search.catalog.tags import Tagged
from vitmae_search.catalog.writable_database import WAIT_SECONDS, WritableDatabase
from vitmae_search.errors import LibraryDamaged
from vitmae_search.records import Failure, JobRecord, Root, Space


class CatalogWriter(Catalog):
    """The catalogue, opened for writing. It can be read as any `Catalog`, also while it writes.

    One process at a time holds it. Each method that changes something is one transaction: done wholly or,
    after an error or a crash, not at all. Methods may be called from several threads; they take turns.
    """

    def __init__(self, database: WritableDatabase) -> None:
        super().__init__(database)
        self._changing = database.changing

    @classmethod
    def open_writer(cls, folder: Path, *, wait: float = WAIT_SECONDS) -> CatalogWriter:
        """Take the writer's lock and open the catalogue, which is made or brought up to date if need be.

        `wait`: how many seconds to wait for another writer. Raises `LibraryBusy` naming its process,
        `LibraryDamaged`, `LibraryTooNew`, or `StorageError` where the folder cannot be written.
        """
        return cls(WritableDatabase(Path(folder), wait))

    def add_root(self, path: str, device: int | None) -> Root:
        """Remember a folder; one that is known is returned as it is. `device` is its `st_dev`."""
        with self._changing() as connection:
            return roots.add(connection, path, device)

    def set_root(self, root_id: int, *, offline: bool, device: int | None = None) -> None:
        """Record how a run found the root. With None the device stays as it was."""
        with self._changing() as connection:
            roots.change(connection, root_id, offline, device)

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
        """The space of features with this fingerprint, made where there is none; the first becomes current.

        With `derivation` the space that is derived from it so, and that takes its place as the first; see
        `derive_space`. Raises `SpaceError` where a space with this fingerprint has another dimension.
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
        with self._changing() as connection:
            features = spaces.ensure(connection, fingerprint, values, current_if_first=derivation is None)
            return (
                features
                if derivation is None
                else derived_spaces.make(connection, features.space_id, derivation)
            )

    def derive_space(self, parent_id: int, derivation: Derivation, *, use: bool = False) -> Space:
        """The space whose vectors are projections of those of space `parent_id`, made where there is none.

        Its vectors are made from the stored ones, all in one transaction. It becomes current if there is
        none, or to `use` it. Raises `SpaceError` where the parent is derived itself, or not there.
        """
        with self._changing() as connection:
            made = derived_spaces.make(connection, parent_id, derivation)
            if use:
                spaces.use(connection, made.space_id)
            return spaces.one(connection, made.space_id)

    def record_batch(
        self,
        space_id: int,
        batch: Sequence[Indexed],
        failures: Sequence[Failure] = (),
        projects: Projects = MappingProxyType({}),
    ) -> tuple[Indexed, ...]:
        """Record what was read, in one transaction, and return what could not be.

        A file that is recorded loses its failure; one that fails gets it, and its photo row goes, unless
        the file has not changed and has a vector in another space. A content whose last row goes is
        deleted with its vectors in all spaces. The space's revision goes up where its vectors change.

        Returned, and not recorded: items that came without a vector (or metadata) though the content has
        none in this space — it may have been deleted since it was looked up. Read and embed them anew.

        Spaces that are derived from this one get their vectors in the same transaction: `projects` holds
        their projections, by digest.

        Raises `SpaceError` for vectors that do not belong: another length, not finite, not unit length; for
        a derived space; and where a projection was not given. `ValueError` where two items name one
        photo_id. `StorageError` where the disk is full.
        """
        with self._changing() as connection:
            space = spaces.outline_of_features(connection, space_id)
            return batches.record(connection, space, batch, failures, projects)

    def mark_missing(self, photo_ids: Sequence[int]) -> None:
        """These files are gone from disk: they keep row and vector, and are left out of searches."""
        self._update_photos(photo_ids, missing=True)

    def mark_found(self, photo_ids: Sequence[int]) -> None:
        """These files are back, unchanged."""
        self._update_photos(photo_ids, missing=False)

    def mark_on_device(self, photo_ids: Sequence[int], device: int) -> None:
        """These unchanged files are now on another device (`st_dev`): the system numbered it anew."""
        self._update_photos(photo_ids, device=device)

    def remove_photos(self, photo_ids: Sequence[int]) -> None:
        """Forget these files, and contents (with their vectors) that no other file has."""
        with self._changing() as connection:
            batches.remove_photos(connection, photo_ids)

    def clear_failures(self, paths: Sequence[str]) -> None:
        """Forget the failures of these files, in all spaces: they are gone from disk."""
        with self._changing() as connection:
            for some in chunks(os.fsencode(path) for path in paths):
                connection.execute(delete(FailureRow).where(FailureRow.path.in_(some)))

    def use_space(self, space_id: int) -> None:
        """Make a space the current one. `SpaceError` says which there are."""
        with self._changing() as connection:
            spaces.use(connection, space_id)

    def drop_space(self, space_id: int) -> None:
        """Delete a space with its vectors and failures.

        If it was current, the newest of the others becomes current: of those with the same features, if
        there are any. `SpaceError` says which there are, or which are derived from it and have to go first.
        """
        with self._changing() as connection:
            spaces.drop(connection, space_id)

    def ensure_classifier(self, *, fingerprint: str, source: str, model: str) -> int:
        """The id of the classifier with this fingerprint, made where there is none.

        The fingerprint is of all that decides its tags; `source` says where it came from (a path, a name),
        so that one that was trained anew takes the place of what it was. `model` is its name for people.
        """
        with self._changing() as connection:
            return tags.ensure_classifier(connection, fingerprint, source, model)

    def record_tags(self, classifier_id: int, batch: Sequence[Tagged]) -> None:
        """Record what a classifier says of some contents, in one transaction.

        It takes the place of what this classifier, or another one from its source, said of them before;
        contents without a tag count as seen. A content that has been deleted meanwhile is passed over.
        Raises `ValueError` for a confidence outside 0 to 1, and for a tag that is empty or comes twice.
        """
        with self._changing() as connection:
            tags.record(connection, classifier_id, batch)

    def start_run(self, key: str, kind: str, arguments: Mapping[str, Any]) -> JobRecord:
        """Record that this process began a long job. `LibraryError` where the key is taken."""
        with self._changing() as connection:
            return runs.start(connection, key, kind, arguments)

    def update_run(self, key: str, progress: Mapping[str, Any]) -> None:
        """Say how far the job is, and that it lives."""
        with self._changing() as connection:
            runs.change(connection, key, progress=dict(progress))

    def finish_run(
        self,
        key: str,
        state: Literal["done", "failed", "cancelled", "interrupted"],
        report: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """Say how the job ended. `report` is JSON; `error` a sentence."""
        values = {
            "state": state,
            "report": None if report is None else dict(report),
            "error": error,
            "ended_at": datetime.now(UTC),
        }
        with self._changing() as connection:
            runs.change(connection, key, **values)

    def repair(self, projects: Projects = MappingProxyType({})) -> list[str]:
        """Set right what `check` finds, and say what was mended: a sentence for each of its problems.

        What cannot be trusted is deleted: the next index run makes it anew. Derived vectors are made anew
        at once, where `projects` has their projection by its digest. Damaged pages of the file itself are
        beyond repair; then nothing is changed and nothing said.
        """
        try:
            with self._changing() as connection:
                return checks.repair(connection, projects)
        except LibraryDamaged:
            return []

    def _update_photos(self, photo_ids: Sequence[int], **values: Any) -> None:
        with self._changing() as connection:
            for ids in chunks(photo_ids):
                connection.execute(update(PhotoRow).where(PhotoRow.photo_id.in_(ids)).values(values))
