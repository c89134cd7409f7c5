"""`CatalogWriter`: the one process that may change the catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitmae_search.catalog.reader import Catalog
from vitmae_search.records import Failure, PhotoMetadata, Root, Run, Space, Stamp


@dataclass(frozen=True, slots=True, eq=False)
class Indexed:
    """A file that was read, ready to be recorded.

    `digest` is SHA-256 in hex. `vector` is (D,) float32 of unit length, or None where the content has its
    vector in the space already (a move, a copy). `metadata` may be None where the content is known.
    `photo_id` is the row to update, or to move here; None finds the row by path, or makes one.
    """

    stamp: Stamp
    digest: str
    metadata: PhotoMetadata | None
    vector: NDArray[np.float32] | None
    photo_id: int | None = None


class CatalogWriter(Catalog):
    """The catalogue, opened for writing. It can be read as any `Catalog`, also while it writes.

    One process at a time holds it. Each method that changes something is one transaction: done wholly or,
    after an error or a crash, not at all. Methods may be called from several threads; they take turns.
    """

    @classmethod
    def open_writer(cls, folder: Path, *, wait: float = 2.0) -> CatalogWriter:
        """Take the writer's lock and open the catalogue, which is made or brought up to date if need be.

        `wait`: how many seconds to wait for another writer. Raises `LibraryBusy` naming its process,
        `LibraryDamaged`, `LibraryTooNew`, or `StorageError` where the folder cannot be written.
        """
        raise NotImplementedError

    def add_root(self, path: str, device: int | None) -> Root:
        """Remember a folder; one that is known is returned as it is. `device` is its `st_dev`."""
        raise NotImplementedError

    def set_root(self, root_id: int, *, offline: bool, device: int | None = None) -> None:
        """Record how a run found the root. With None the device stays as it was."""
        raise NotImplementedError

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
    ) -> Space:
        """The space with this fingerprint, made where there is none; the first becomes current.

        Raises `SpaceError` where a space with this fingerprint has another dimension.
        """
        raise NotImplementedError

    def record_batch(
        self, space_id: int, batch: Sequence[Indexed], failures: Sequence[Failure] = ()
    ) -> tuple[Indexed, ...]:
        """Record what was read, in one transaction, and return what could not be.

        A file that is recorded loses its failure; one that fails gets it, and its photo row goes, unless
        the file has not changed and has a vector in another space. A content whose last row goes is
        deleted with its vectors in all spaces. The space's revision goes up where its vectors change.

        Returned, and not recorded: items that came without a vector (or metadata) though the content has
        none in this space — it may have been deleted since it was looked up. Read and embed them anew.

        Raises `SpaceError` for vectors that do not belong: another length, not finite, not unit length;
        `ValueError` where two items name one photo_id. `StorageError` where the disk is full.
        """
        raise NotImplementedError

    def mark_missing(self, photo_ids: Sequence[int]) -> None:
        """These files are gone from disk: they keep row and vector, and are left out of searches."""
        raise NotImplementedError

    def mark_found(self, photo_ids: Sequence[int]) -> None:
        """These files are back, unchanged."""
        raise NotImplementedError

    def remove_photos(self, photo_ids: Sequence[int]) -> None:
        """Forget these files, and contents (with their vectors) that no other file has."""
        raise NotImplementedError

    def clear_failures(self, paths: Sequence[str]) -> None:
        """Forget the failures of these files, in all spaces: they are gone from disk."""
        raise NotImplementedError

    def use_space(self, space_id: int) -> None:
        """Make a space the current one. `SpaceError` says which there are."""
        raise NotImplementedError

    def drop_space(self, space_id: int) -> None:
        """Delete a space with its vectors and failures.

        If it was current, the newest of the others becomes current. `SpaceError` says which there are.
        """
        raise NotImplementedError

    def start_run(self, key: str, kind: str, arguments: Mapping[str, Any]) -> Run:
        """Record that this process began a long job. `LibraryError` where the key is taken."""
        raise NotImplementedError

    def update_run(self, key: str, progress: Mapping[str, Any]) -> None:
        """Say how far the job is, and that it lives."""
        raise NotImplementedError

    def finish_run(
        self,
        key: str,
        state: Literal["done", "failed", "cancelled", "interrupted"],
        report: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """Say how the job ended. `report` is JSON; `error` a sentence."""
        raise NotImplementedError
