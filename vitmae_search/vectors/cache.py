"""Indexes on disk and in memory that follow their sources. They can always be made again."""

from __future__ import annotations

import logging
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitmae_search.atomic import sync_folder
from vitmae_search.errors import VectorCacheDamaged, VectorIndexError
from vitmae_search.vectors.contract import Ids, Vectors, VectorSource
from vitmae_search.vectors.file import read_index_file, write_index_file
from vitmae_search.vectors.flat import FlatIndex

log = logging.getLogger(__name__)


class _Diverged(VectorIndexError):
    """The cache and its source do not share a history (the catalogue was replaced, say)."""


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """An index that nobody changes any more, and the revision of which history it has caught up with."""

    index: FlatIndex
    history: str
    revision: int


class VectorCache:
    """One index file a space in `folder`, `<library>/vectors/`; safe to use from many threads.

    The folder need not be there, readable or writable: without it indexes are rebuilt from their source
    and live in memory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._lock = threading.Lock()
        self._snapshots: dict[str, _Snapshot] = {}
        self._saved: dict[str, int] = {}

    def path(self, key: str) -> Path:
        """The file of the space `key`, whether or not it is there."""
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", key):
            raise ValueError(f"{key!r} cannot name a file")
        return self.folder / f"{key}.vectors"

    def open(self, source: VectorSource) -> FlatIndex:
        """An index that has caught up with `source`: from memory, from its file, or rebuilt.

        What is returned is never changed: a later change is made to a copy, which takes its place, so
        searches go on undisturbed. Raises `VectorIndexError` where the source itself holds vectors that
        no index takes.
        """
        with self._lock:
            snapshot = self._snapshots.get(source.key)
            if snapshot is None or snapshot.history != source.history:
                self._saved.pop(source.key, None)
                snapshot = self._load(source)
            elif snapshot.revision != source.revision():
                snapshot = _caught_up(snapshot.index.copy(), snapshot.revision, source)
            if snapshot is None:
                snapshot = _rebuilt(source)
            self._snapshots[source.key] = snapshot
            return snapshot.index

    def save(self, source: VectorSource) -> bool:
        """Catch up and write the file if it is behind. False where the folder cannot be written."""
        self.open(source)
        with self._lock:
            snapshot = self._snapshots[source.key]
            path = self.path(source.key)
            if self._saved.get(source.key) == snapshot.revision and path.is_file():
                return True
            try:
                write_index_file(path, source.key, source.history, snapshot.index, snapshot.revision)
            except OSError as error:
                log.warning("The vector index was not saved (%s); it is rebuilt when needed.", error)
                return False
            self._saved[source.key] = snapshot.revision
            return True

    def verify(self, source: VectorSource) -> bool:
        """Read the file and compare it with `source`. False where there is none.

        Raises `VectorCacheDamaged` where it is damaged, or holds what the source does not.
        """
        try:
            index, revision = self._read(source)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise VectorCacheDamaged(f"{self.path(source.key)}: {error.strerror}.") from error
        if revision > source.revision():
            raise VectorCacheDamaged(f"{self.path(source.key)}: newer than the catalogue.")
        index.remove(source.removed_since(revision))
        try:
            seen = _add_new(index, source, 0)
        except _Diverged as error:
            raise VectorCacheDamaged(f"{self.path(source.key)}: {error}") from error
        removed = source.removed_since(revision)  # once more: a writer may be at work
        index.remove(removed)
        if not np.array_equal(index.ids, np.setdiff1d(seen, removed)):
            raise VectorCacheDamaged(f"{self.path(source.key)}: holds vectors that the catalogue lacks.")
        return True

    def discard(self, key: str) -> None:
        """Forget the space `key` and delete its file, if that can be done."""
        with self._lock:
            self._snapshots.pop(key, None)
            self._saved.pop(key, None)
            with suppress(OSError):
                self.path(key).unlink()
                sync_folder(self.folder)

    def keys(self) -> list[str]:
        """The spaces that have a file, sorted."""
        try:
            return sorted(path.stem for path in self.folder.glob("*.vectors"))
        except OSError:
            return []

    def _read(self, source: VectorSource) -> tuple[FlatIndex, int]:
        return read_index_file(self.path(source.key), source.key, source.history, source.dimension)

    def _load(self, source: VectorSource) -> _Snapshot | None:
        try:
            index, revision = self._read(source)
        except FileNotFoundError:
            return None
        except (OSError, VectorCacheDamaged) as error:
            log.warning("The vector index is rebuilt from the catalogue: %s", error)
            return None
        snapshot = _caught_up(index, revision, source)
        if snapshot is not None:
            self._saved[source.key] = revision
        return snapshot


def _caught_up(index: FlatIndex, revision: int, source: VectorSource) -> _Snapshot | None:
    """`index`, changed until it has what `source` has; None where it must be rebuilt.

    It begins one revision early: where the catalogue was put back from a backup and then went another
    way, the last change that both should have differs, though the revision may not.
    """
    # Read first: what is written from now on is given again by the next catch-up, and tolerated there.
    history, latest = source.history, source.revision()
    if latest < revision:
        return None
    since = max(0, revision - 1)
    index.remove(source.removed_since(since))
    try:
        _add_new(index, source, since)
    except VectorIndexError as error:
        log.warning("The vector index is rebuilt from the catalogue: %s", error)
        return None
    return _Snapshot(index, history, latest)


def _rebuilt(source: VectorSource) -> _Snapshot:
    index = FlatIndex(source.dimension)
    history, latest = source.history, source.revision()
    _add_new(index, source, 0)
    return _Snapshot(index, history, latest)


def _add_new(index: FlatIndex, source: VectorSource, revision: int) -> Ids:
    """Add what the source gained after `revision`; return the (N,) ids that it gave.

    An id that is there already must have the very same vector: it was read by an earlier catch-up that
    ran beside the writer.
    """
    seen = [np.empty(0, np.int64)]
    for ids, vectors in source.added_since(revision):
        known = index.contains(ids)
        if known.any() and not _same(index.vectors(ids[known]), vectors[known]):
            raise _Diverged("an id has another vector than in the catalogue.")
        index.add(ids[~known], vectors[~known])
        seen.append(ids)
    return np.concatenate(seen)


def _same(a: Vectors, b: Vectors) -> bool:
    return a.shape == b.shape and bool((a.view(np.uint32) == np.ascontiguousarray(b).view(np.uint32)).all())
