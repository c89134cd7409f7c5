"""Indexes on disk and in memory that follow their sources. They can always be made again.

How an index follows its source: from the revision that it has to the last one.

Which index a space is searched with, and why: from its files' first pages, without catching up.

One thread that does what takes long, after and beside the searches.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitmae_search.atomic import sync_folder
from vitmae_search.errors import VectorCacheDamaged, VectorIndexError, VitmaeSearchError
from vitmae_search.records import IndexListing
from vitmae_search.vectors.exact import ExactIndex, exact_seconds
from vitmae_search.vectors.file import (
    Origin,
    VectorsFile,
    read_origin,
    read_payload_file,
    write_payload_file,
    write_vectors_file,
)
from vitmae_search.vectors.protocols import Asked, Ids, Policy, Vectors, VectorSource, never
from vitmae_search.vectors.space_index import SpaceIndex

if TYPE_CHECKING:
    from vitmae_search.vectors.approximate import ApproximateIndex


log = logging.getLogger(__name__)


class Diverged(VectorIndexError):
    """The cache and its source do not share a history (the catalogue was replaced, say)."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An index that nobody changes any more, what it has caught up with, and the file that it began as.

    Its approximate index may be older: an exact search covers what that lacks.
    """

    exact: ExactIndex
    origin: Origin
    file: VectorsFile | None = None
    approximate: ApproximateIndex | None = None

    @property
    def saved(self) -> int:
        """The revision of its file; -1 where it has none."""
        return -1 if self.file is None else self.file.origin.revision


def origin_of(source: VectorSource) -> Origin:
    """The space of `source`, at its last revision."""
    return Origin(source.key, source.history, source.dimension, source.revision())


def caught_up(begun: Snapshot, source: VectorSource, wanted: Origin) -> Snapshot | None:
    """`begun`, changed until it has what `source` has; None where it must be rebuilt.

    It looks one revision back, at a chunk: where the catalogue was put back from a backup and then went
    another way, the last change that both should have differs, though the revision may not.
    """
    if wanted.revision < begun.origin.revision:
        return None
    exact, since = begun.exact.copy(), begun.origin.revision
    exact.remove(source.removed_since(max(0, since - 1)))
    try:
        add_new(exact, islice(source.added_since(max(0, since - 1)), 1))
        if since < wanted.revision:
            add_new(exact, source.added_since(since))
    except VectorIndexError as error:
        log.warning("The vector index is rebuilt from the catalogue: %s", error)
        return None
    return replace(begun, exact=exact, origin=wanted)


def add_new(index: ExactIndex, chunks: Iterable[tuple[Ids, Vectors]]) -> Ids:
    """Add what a source gives; return all of the (N,) ids.

    An id that is there already must have the very same vector: it was read by an earlier catch-up that
    ran beside the writer.
    """
    seen = [np.empty(0, np.int64)]
    for ids, vectors in chunks:
        known = index.contains(ids)
        if known.any() and not _same(index.vectors(ids[known]), vectors[known]):
            raise Diverged("an id has another vector than in the catalogue.")
        index.add(ids[~known], vectors[~known])
        seen.append(ids)
    return np.concatenate(seen)


def _same(a: Vectors, b: Vectors) -> bool:
    return a.shape == b.shape and bool((a.view(np.uint32) == np.ascontiguousarray(b).view(np.uint32)).all())


def describe(vectors: Path, approximate: Path, wanted: Origin, policy: Policy) -> IndexListing:
    """What the next search in this space would use."""
    try:
        file = VectorsFile(vectors, wanted)
    except FileNotFoundError:
        return IndexListing("exact", 0, 0, None, "the index file is made when it is first searched")
    except (OSError, VectorCacheDamaged) as error:
        return IndexListing("exact", 0, 0, None, f"the index file is made again: {error}")
    count, size = len(file.ids), vectors.stat().st_size
    known = _approximate(approximate, wanted)
    if known is not None and known["measured"]["recall"] >= policy.recall:
        measured = known["measured"]
        recall, queries, day = float(measured["recall"]), measured["queries"], measured["built_at"][:10]
        why = f"recall@10 {recall:.3f}, measured on {queries:,} queries, {day}"
        return IndexListing(known["kind"], count, size + approximate.stat().st_size, recall, why)
    return IndexListing("exact", count, size, None, _why_exact(file, known, policy))


def _approximate(path: Path, wanted: Origin) -> dict[str, Any] | None:
    try:
        origin, more = read_origin(path, wanted)
        return more if origin.revision <= wanted.revision else None
    except (OSError, VectorCacheDamaged):
        return None


def _why_exact(file: VectorsFile, known: dict[str, Any] | None, policy: Policy) -> str:
    from vitmae_search.vectors.exact import ExactIndex, exact_seconds

    seconds = exact_seconds(ExactIndex.of(file.ids, file.vectors))
    taking = f"{len(file.ids):,} vectors take about {max(1, round(1000 * seconds))} ms"
    if known is not None:
        recall = float(known["measured"]["recall"])
        return f"{taking}; an approximate index found {recall:.3f} of the ten best, which is too few"
    if policy.wants_faster(seconds, file.origin.dimension):
        return f"{taking}; the app, or the next `index`, makes an approximate index"
    return taking


_NICE = 10


class Background:
    """Calls `work(source, cancelled)` for each source it is told of, one at a time.

    The thread begins with the first one, gives way to everything else (where the system knows priorities of
    threads, which Linux does), and ends with `close`.
    """

    def __init__(self, work: Callable[[VectorSource, Callable[[], bool]], None]) -> None:
        self._work = work
        self._waiting: dict[str, VectorSource] = {}
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, source: VectorSource) -> None:
        """Look after this source soon; one of the same key that waits is replaced."""
        with self._changed:
            if self._closed.is_set():
                return
            self._waiting[source.key] = source
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="vectors", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Give up what is being done, and wait until that has ended."""
        with self._changed:
            self._closed.set()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed.is_set())
                if self._closed.is_set():
                    return
                source = self._waiting.pop(next(iter(self._waiting)))
            try:
                self._work(source, self._closed.is_set)
            except VitmaeSearchError as error:
                log.warning("Looking after the vector index: %s", error)


_SURELY_FAST = 16 << 20
"""Bytes that any machine scans in a few milliseconds."""


class VectorCache:
    """A vectors file a space in `folder`, `<library>/vectors/`, and an approximate index where that helps.

    Safe to use from many threads. The folder need not be there, readable or writable: without it indexes
    are rebuilt from their source and live in memory.
    """

    def __init__(self, folder: Path, policy: Policy | None = None, *, background: bool = False) -> None:
        """With `background`, a thread looks after each space that is opened, until `close`."""
        self.folder = Path(folder)
        self.policy = policy or Policy()
        self._lock = threading.Lock()
        self._snapshots: dict[str, Snapshot] = {}
        self._seen: dict[str, Snapshot] = {}
        self._background = Background(self.look_after) if background else None

    def renewed(self) -> VectorCache:
        """Another one for the same folder, that knows nothing yet; this one is closed."""
        self.close()
        return VectorCache(self.folder, self.policy, background=self._background is not None)

    def close(self) -> None:
        """End the thread in the background, if there is one."""
        if self._background is not None:
            self._background.close()

    def path(self, key: str) -> Path:
        """The file of the space `key`, whether or not it is there."""
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", key):
            raise ValueError(f"{key!r} cannot name a file")
        return self.folder / f"{key}.vectors"

    def approximate_path(self, key: str) -> Path:
        """The file of the space's approximate index, whether or not it is there."""
        return self.path(key).with_suffix(".approximate")

    def open(self, source: VectorSource) -> SpaceIndex:
        """An index that has caught up with `source`: from memory, from its file, or rebuilt.

        What is returned is never changed: a later change is made to a copy, which takes its place, so
        searches go on undisturbed. Raises `VectorIndexError` where the source itself holds vectors that
        no index takes.
        """
        with self._lock:
            snapshot = self._current(source)
        if self._background is not None and self._seen.get(source.key) is not snapshot:
            self._seen[source.key] = snapshot
            self._background.add(source)
        approximate = snapshot.approximate
        if approximate is not None and approximate.measured.recall < self.policy.recall:
            approximate = None
        return SpaceIndex(snapshot.exact, approximate, source)

    def is_current(self, source: VectorSource) -> bool:
        """Whether the file on disk is all that `source` has. Only the file's first page is read."""
        wanted = origin_of(source)
        try:
            return read_origin(self.path(source.key), wanted)[0] == wanted
        except (OSError, VectorCacheDamaged):
            return False

    def save(self, source: VectorSource) -> bool:
        """Catch up and write the file if it is behind. False where the folder cannot be written."""
        if self.is_current(source):
            return True
        with self._lock:
            snapshot = self._current(source)
            if snapshot.saved == snapshot.origin.revision and self.path(source.key).is_file():
                return True  # it was written just now
            try:
                write_vectors_file(self.path(source.key), snapshot.origin, snapshot.exact.chunks())
                opened = self._opened(snapshot.origin)
            except (OSError, VectorCacheDamaged) as error:
                log.warning("The vector index was not saved (%s); it is rebuilt when needed.", error)
                return False
            self._snapshots[source.key] = replace(opened, approximate=snapshot.approximate)
            return True

    def look_after(self, source: VectorSource, cancelled: Asked = never) -> None:
        """Do what takes long: compare the file with its checksum, and make the approximate index.

        Searches go on meanwhile. A damaged file is rebuilt. Returns early once `cancelled` says so.
        """
        with self._lock:
            held = self._current(source)
        if held.file is not None and not held.file.intact(cancelled) and not cancelled():
            log.warning("%s is damaged; it is rebuilt from the catalogue.", held.file.path)
            rebuilt = self._rebuilt(source, origin_of(source))
            with self._lock:
                self._snapshots[source.key] = rebuilt
        self.speed_up(source, cancelled)

    def speed_up(self, source: VectorSource, cancelled: Asked = never) -> None:
        """Make the approximate index, or bring it up to date, if `policy` wants it. Searches go on meanwhile.

        Returns early once `cancelled` says so.
        """
        if self._needs_nothing(source):
            return
        with self._lock:
            held = self._current(source)
        before = held.approximate or self._read_approximate(held.origin)
        if before is None and not self.policy.wants_faster(exact_seconds(held.exact), source.dimension):
            return
        from vitmae_search.vectors.approximate import Cancelled
        from vitmae_search.vectors.tune import improved

        try:
            made = improved(held.exact, before, self.policy, cancelled)
        except Cancelled:
            return
        if made is not before:
            with suppress(OSError):
                write_payload_file(self.approximate_path(source.key), held.origin, *made.stored())
        with self._lock:
            now = self._snapshots.get(source.key)
            if now is not None and now.origin.same_space(held.origin):
                self._snapshots[source.key] = replace(now, approximate=made)

    def verify(self, source: VectorSource) -> bool:
        """Read the files and compare the vectors with `source`. False where there are none.

        Raises `VectorCacheDamaged` where one is damaged, or holds what the source does not.
        """
        path, wanted = self.path(source.key), origin_of(source)
        try:
            file = VectorsFile(path, wanted)
            with suppress(FileNotFoundError):
                read_payload_file(self.approximate_path(source.key), wanted)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise VectorCacheDamaged(f"{path}: {error.strerror}.") from error
        if not file.intact():
            raise VectorCacheDamaged(f"{path}: the checksum does not fit.")
        if file.origin.revision > source.revision():
            raise VectorCacheDamaged(f"{path}: newer than the catalogue.")
        index = ExactIndex.of(file.ids, file.vectors)
        index.remove(source.removed_since(file.origin.revision))
        try:
            seen = add_new(index, source.added_since(0))
        except Diverged as error:
            raise VectorCacheDamaged(f"{path}: {error}") from error
        removed = source.removed_since(file.origin.revision)  # once more: a writer may be at work
        index.remove(removed)
        if not np.array_equal(index.ids, np.setdiff1d(seen, removed)):
            raise VectorCacheDamaged(f"{path}: holds vectors that the catalogue lacks.")
        return True

    def describe(self, source: VectorSource) -> IndexListing:
        """Which index the space is searched with, and why."""
        return describe(
            self.path(source.key), self.approximate_path(source.key), origin_of(source), self.policy
        )

    def discard(self, key: str) -> None:
        """Forget the space `key` and delete its files, if that can be done."""
        with self._lock:
            self._snapshots.pop(key, None)
            for path in (self.path(key), self.approximate_path(key)):
                with suppress(OSError):
                    path.unlink()
                    sync_folder(self.folder)

    def keys(self) -> list[str]:
        """The spaces that have a file, sorted."""
        try:
            return sorted(path.stem for path in self.folder.glob("*.vectors"))
        except OSError:
            return []

    def _current(self, source: VectorSource) -> Snapshot:
        """The snapshot that has caught up with `source`, kept for the next time."""
        # Read first: what is written from now on is given again by the next catch-up, and tolerated there.
        wanted = origin_of(source)
        held = self._snapshots.get(source.key)
        if held is not None and not held.origin.same_space(wanted):
            held = None
        if held is None or held.origin.revision != wanted.revision:
            begun = self._loaded(wanted, held) or held
            held = (begun and caught_up(begun, source, wanted)) or self._rebuilt(source, wanted)
            self._snapshots[source.key] = held
        return held

    def _opened(self, wanted: Origin) -> Snapshot:
        file = VectorsFile(self.path(wanted.key), wanted)
        return Snapshot(ExactIndex.of(file.ids, file.vectors), file.origin, file)

    def _loaded(self, wanted: Origin, held: Snapshot | None) -> Snapshot | None:
        """From the files, unless what is `held` came from them; None where they cannot be used."""
        try:
            origin = read_origin(self.path(wanted.key), wanted)[0]
            if held is not None and origin.revision <= held.saved:
                return None
            return replace(self._opened(wanted), approximate=self._read_approximate(wanted))
        except FileNotFoundError:
            return None
        except (OSError, VectorIndexError) as error:
            log.warning("The vector index is rebuilt from the catalogue: %s", error)
            return None

    def _read_approximate(self, wanted: Origin) -> ApproximateIndex | None:
        """From its file; None where there is none that fits."""
        try:
            origin, more, payload = read_payload_file(self.approximate_path(wanted.key), wanted)
            if origin.revision > wanted.revision:
                return None
            from vitmae_search.vectors.approximate import ApproximateIndex

            return ApproximateIndex.read(payload, more)
        except FileNotFoundError:
            return None
        except (OSError, VectorIndexError) as error:
            log.warning("Searches are exact until the approximate index is made again: %s", error)
            return None

    def _needs_nothing(self, source: VectorSource) -> bool:
        """Whether exact searches are surely fast, or the approximate index on disk is of the last revision.

        Only the files' first pages are read.
        """
        wanted, held = origin_of(source), self._snapshots.get(source.key)
        with suppress(OSError, VectorCacheDamaged):
            count = read_origin(self.path(source.key), wanted)[1]["count"]
            if self.policy.exact_seconds > 0 and 4 * count * source.dimension <= _SURELY_FAST:
                return True
        if held is not None and held.approximate is None:
            return False
        with suppress(OSError, VectorCacheDamaged):
            return read_origin(self.approximate_path(source.key), wanted)[0] == wanted
        return False

    def _rebuilt(self, source: VectorSource, wanted: Origin) -> Snapshot:
        """All of `source`: by way of the file, or in memory where there can be none."""
        try:
            write_vectors_file(self.path(source.key), wanted, source.added_since(0))
            return self._opened(wanted)
        except OSError:
            exact = ExactIndex(source.dimension)
            add_new(exact, source.added_since(0))
            return Snapshot(exact, wanted)
