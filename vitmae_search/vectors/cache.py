"""`VectorCache`: index files of a library's spaces, kept in step with the catalogue.

An index catches up from the revision that it has to the source's last one. Any file here can be rebuilt from
the source, so a missing, damaged or unwritable one costs time only.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitmae_search.atomic import sync_folder
from vitmae_search.errors import VectorCacheDamaged, VectorIndexError, VitmaeSearchError
from vitmae_search.records import IndexListing
from vitmae_search.vectors.exact import ExactIndex, exact_seconds
from vitmae_search.vectors.file import (
    PAYLOAD,
    READ_BYTES,
    VECTORS,
    Origin,
    VectorsFile,
    read_origin,
    read_payload_file,
    write_payload_file,
    write_vectors_file,
)
from vitmae_search.vectors.protocols import Ids, IsCancelled, Policy, Vectors, VectorSource, never_cancel
from vitmae_search.vectors.space_index import SpaceIndex

if TYPE_CHECKING:
    from vitmae_search.vectors.approximate import ApproximateIndex

log = logging.getLogger(__name__)

_SURELY_FAST_BYTES = 16 << 20
"""Any machine scans this many bytes of vectors in a few milliseconds."""

_MOST_REMOVED = 0.125
"""Removed vectors stay in the file until they are more than this share of it. Then it is written anew."""

_READ_AFTER = 4
"""At this opening of a space its vectors are read into memory, if they are few enough. For 100,000 vectors of
256 numbers that takes 0.15 s, which one search in a new process would not recover. The app reads them at
once."""

_NICE = 10


class SourceDiverged(VectorIndexError):
    """Cache and source do not share a history, for instance because the catalogue was replaced."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An immutable index and the revision that it has caught up with.

    Attributes:
        exact: All vectors of the space at `origin.revision`.
        origin: The space and the revision.
        file: The file that has its first vectors.
        approximate: May be older than `exact`: what it lacks is searched exactly.
    """

    exact: ExactIndex
    origin: Origin
    file: VectorsFile | None = None
    approximate: ApproximateIndex | None = None

    @property
    def saved_revision(self) -> int:
        """The file's revision, or -1 without a file."""
        return -1 if self.file is None else self.file.origin.revision


def current_origin(source: VectorSource) -> Origin:
    """Return the space of `source` at its last revision."""
    return Origin.at(source, source.revision())


def sync_with_source(begun: Snapshot, source: VectorSource, wanted: Origin) -> Snapshot | None:
    """Bring an index up to the source's revision.

    Args:
        begun: The index so far; it is not changed.
        source: The vectors.
        wanted: The revision to reach.

    Returns:
        A new snapshot, or `begun` if it is there already; None if it is of another history and must be
        rebuilt.
    """
    since = begun.origin.revision
    if not begun.origin.belongs_to(source):
        return None
    if since >= wanted.revision:
        return begun
    exact = begun.exact.copy()
    exact.remove(source.removed_since(since))
    try:
        add_from_source(exact, source.added_since(since))
    except VectorIndexError as error:
        log.warning("The vector index is rebuilt from the catalogue: %s", error)
        return None
    return replace(begun, exact=exact, origin=wanted)


def add_from_source(index: ExactIndex, chunks: Iterable[tuple[Ids, Vectors]]) -> Ids:
    """Add vectors of a source to an index.

    An id that is in the index must have the same vector, bit for bit: an earlier catch-up, beside a writer,
    may have read it already.

    Args:
        index: The index, which is changed.
        chunks: (n,) ids with (n, D) vectors.

    Returns:
        All ids of the chunks, (N,) int64.

    Raises:
        SourceDiverged: An id has another vector in the index.
    """
    seen = [np.empty(0, np.int64)]
    for ids, vectors in chunks:
        known = index.contains(ids)
        if known.any() and not _same(index.vectors(ids[known]), vectors[known]):
            raise SourceDiverged("an id has another vector than in the catalogue.")
        index.add(ids[~known], vectors[~known])
        seen.append(ids)
    return np.concatenate(seen)


def _same(a: Vectors, b: Vectors) -> bool:
    return a.shape == b.shape and bool((a.view(np.uint32) == np.ascontiguousarray(b).view(np.uint32)).all())


def index_listing(vectors: Path, approximate: Path, source: VectorSource, policy: Policy) -> IndexListing:
    """Say which index a space is searched with, and why, from the first pages of its files.

    Args:
        vectors: The vectors file.
        approximate: The file of the approximate index.
        source: The space.
        policy: Decides between the two.
    """
    try:
        file = VectorsFile(vectors, source, read_bytes=0)  # a few of them are looked at
    except FileNotFoundError:
        return IndexListing("exact", 0, 0, None, "the index file is made when it is first searched", 0)
    except (OSError, VectorCacheDamaged) as error:
        return IndexListing("exact", 0, 0, None, f"the index file is made again: {error}", 0)
    count, size = len(file.ids) - file.removed, vectors.stat().st_size
    known = _approximate_header(approximate, source)
    if known is not None and known["measured"]["recall"] >= policy.recall:
        measured = known["measured"]
        recall, queries, day = float(measured["recall"]), measured["queries"], measured["built_at"][:10]
        why = f"recall@10 {recall:.3f}, measured on {queries:,} queries, {day}"
        size += approximate.stat().st_size
        return IndexListing(known["kind"], count, size, recall, why, file.origin.revision)
    return IndexListing("exact", count, size, None, _why_exact(file, known, policy), file.origin.revision)


def _approximate_header(path: Path, source: VectorSource) -> dict[str, Any] | None:
    try:
        return read_origin(path, source, PAYLOAD)[1]
    except (OSError, VectorCacheDamaged):
        return None


def _why_exact(file: VectorsFile, known: dict[str, Any] | None, policy: Policy) -> str:
    seconds = exact_seconds(ExactIndex.from_arrays(file.ids, file.vectors))
    taking = f"{len(file.ids):,} vectors take about {max(1, round(1000 * seconds))} ms"
    if known is not None:
        recall = float(known["measured"]["recall"])
        return f"{taking}; an approximate index found {recall:.3f} of the ten best, which is too few"
    if policy.wants_faster(seconds, file.origin.dimension):
        return f"{taking}; the app, or the next `index`, makes an approximate index"
    return taking


def _append(snapshot: Snapshot) -> bool:
    """Append what the file lacks to it. Return False if it is better, or necessary, to write it anew."""
    file = snapshot.file
    if file is None:
        return False
    rows = len(file.ids)
    removed = rows - snapshot.exact.count_before(rows)
    if removed > _MOST_REMOVED * rows:
        return False
    return file.append(snapshot.origin, removed, snapshot.exact.chunks(rows))


class BackgroundWorker:
    """One thread that calls `work(source, cancelled)` for each source that is added, one after the other.

    The thread starts with the first source and ends with `close`. It runs at a lower priority where the
    operating system has priorities of threads, as Linux has.
    """

    def __init__(self, work: Callable[[VectorSource, Callable[[], bool]], None]) -> None:
        self._work = work
        self._waiting: dict[str, VectorSource] = {}
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, source: VectorSource) -> None:
        """Schedule a source. One of the same key that still waits is replaced."""
        with self._changed:
            if self._closed.is_set():
                return
            self._waiting[source.key] = source
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="vectors", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Cancel the current work and wait for its end."""
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
                log.warning("Maintaining the vector index: %s", error)


class VectorCache:
    """The vector indexes of a library, in memory and as files in `<library>/vectors/`.

    Each space has a vectors file, and an approximate index where that makes searches faster. Safe to use from
    many threads. The folder need not exist or be readable or writable: indexes are then rebuilt from their
    source and kept in memory.

    Attributes:
        folder: Where the files are.
        policy: When a space gets an approximate index.
        noun: See `VectorStore`.
    """

    noun = "index file"

    def __init__(self, folder: Path, policy: Policy | None = None, *, background: bool = False) -> None:
        """Open a folder of indexes. Nothing is read or written yet.

        Args:
            folder: Where the files are.
            policy: When a space gets an approximate index.
            background: Run `maintain` in a thread for each space that is opened, until `close`.
        """
        self.folder = Path(folder)
        self.policy = policy or Policy()
        self._lock = threading.Lock()
        self._snapshots: dict[str, Snapshot] = {}
        self._maintained: dict[str, Snapshot] = {}
        self._background = BackgroundWorker(self.maintain) if background else None
        self._openings: Counter[str] = Counter()
        self._read_after = 0 if background else _READ_AFTER

    def reopened(self) -> VectorCache:
        """Close this cache and return a new one for the same folder, with nothing in memory."""
        self.close()
        return VectorCache(self.folder, self.policy, background=self._background is not None)

    def close(self) -> None:
        """End the background thread, if there is one."""
        if self._background is not None:
            self._background.close()

    def path(self, key: str) -> Path:
        """Return the path of the vectors file of space `key`, whether or not it exists."""
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", key):
            raise ValueError(f"{key!r} cannot name a file")
        return self.folder / f"{key}.vectors"

    def approximate_path(self, key: str) -> Path:
        """Return the path of the space's approximate index, whether or not it exists."""
        return self.path(key).with_suffix(".approximate")

    def open(self, source: VectorSource) -> SpaceIndex:
        """Return an index that has caught up with `source`: from memory, from its file, or rebuilt.

        The returned index is immutable. Later changes are made to a copy, so running searches are not
        disturbed.

        Raises:
            VectorIndexError: The source holds vectors that no index accepts.
        """
        with self._lock:
            self._openings[source.key] += 1
            snapshot = self._current(source)
            if self._openings[source.key] == self._read_after:
                snapshot = self._snapshots[source.key] = self._read(snapshot, source)
        if self._background is not None and self._maintained.get(source.key) is not snapshot:
            self._maintained[source.key] = snapshot
            self._background.add(source)
        approximate = snapshot.approximate
        if approximate is not None and approximate.measured.recall < self.policy.recall:
            approximate = None
        return SpaceIndex(snapshot.exact, approximate, source)

    def is_current(self, source: VectorSource) -> bool:
        """Return whether the file has the source's last revision. Only its first page is read."""
        try:
            return read_origin(self.path(source.key), source, VECTORS)[0].revision == source.revision()
        except (OSError, VectorCacheDamaged):
            return False

    def save(self, source: VectorSource) -> bool:
        """Catch up and write what the file lacks. Return False if it cannot be written."""
        if self.is_current(source):
            return True
        with self._lock:
            snapshot = self._current(source)
            if snapshot.saved_revision == snapshot.origin.revision and self.path(source.key).is_file():
                return True  # it was written just now
            try:
                self._write(snapshot, source)
                opened = self._opened(source)
            except (OSError, VectorCacheDamaged) as error:
                log.warning("The vector index was not saved (%s); it is rebuilt when needed.", error)
                return False
            self._snapshots[source.key] = replace(opened, approximate=snapshot.approximate)
            return True

    def maintain(self, source: VectorSource, cancelled: IsCancelled = never_cancel) -> None:
        """Verify the file's checksum, rebuild it if it is damaged, and then `speed_up`.

        Searches continue meanwhile.

        Args:
            source: The vectors.
            cancelled: Ends the work early.
        """
        with self._lock:
            held = self._current(source)
        if held.file is not None and not held.file.verify_checksum(cancelled) and not cancelled():
            log.warning("%s is damaged; it is rebuilt from the catalogue.", held.file.path)
            rebuilt = self._rebuilt(source, current_origin(source))
            with self._lock:
                self._snapshots[source.key] = rebuilt
        self.speed_up(source, cancelled)

    def speed_up(self, source: VectorSource, cancelled: IsCancelled = never_cancel) -> None:
        """Build or update the approximate index if the policy wants one. Searches continue meanwhile.

        Args:
            source: The vectors.
            cancelled: Ends the work early.
        """
        if self._is_fast_enough(source):
            return
        with self._lock:
            held = self._current(source)
        before = held.approximate or self._read_approximate(source)
        if before is None and not self.policy.wants_faster(exact_seconds(held.exact), source.dimension):
            return
        from vitmae_search.vectors.approximate import BuildCancelled
        from vitmae_search.vectors.tune import updated_approximate

        held = self._read(held, source)
        try:
            made = updated_approximate(held.exact, before, self.policy, cancelled)
        except BuildCancelled:
            return
        if made is not before:
            with suppress(OSError):
                write_payload_file(self.approximate_path(source.key), held.origin, *made.serialize())
        with self._lock:
            now = self._snapshots.get(source.key)
            if now is not None and held.origin.belongs_to(source):
                self._snapshots[source.key] = replace(now, approximate=made)

    def verify(self, source: VectorSource) -> bool:
        """Read the files completely and compare the vectors with the source.

        Returns:
            False if there are no files.

        Raises:
            VectorCacheDamaged: A file is damaged, or holds what the source does not.
        """
        path = self.path(source.key)
        try:
            file = VectorsFile(path, source)
            with suppress(FileNotFoundError):
                read_payload_file(self.approximate_path(source.key), source)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise VectorCacheDamaged(f"{path}: {error.strerror}.") from error
        if not file.verify_checksum():
            raise VectorCacheDamaged(f"{path}: the checksum does not fit.")
        index = ExactIndex.from_arrays(file.ids, file.vectors)
        index.remove(file.removed_ids(source))
        try:
            seen = add_from_source(index, source.added_since(0))
        except SourceDiverged as error:
            raise VectorCacheDamaged(f"{path}: {error}") from error
        removed = file.removed_ids(source)  # again: a writer may have removed more
        index.remove(removed)
        if not np.array_equal(index.ids, np.setdiff1d(seen, removed)):
            raise VectorCacheDamaged(f"{path}: holds vectors that the catalogue lacks.")
        return True

    def contradicted(self, source: VectorSource) -> Ids:
        """Return ids, (N,) int64, of vectors that changed in the source without a new revision.

        The space's file has other bytes for them, and its checksums fit: the source was damaged since.
        """
        wrong = [np.empty(0, np.int64)]
        with suppress(OSError, VitmaeSearchError):
            file = VectorsFile(self.path(source.key), source)
            if file.verify_checksum():
                index = ExactIndex.from_arrays(file.ids, file.vectors)
                for ids, vectors in source.added_since(0):
                    known = index.contains(ids)
                    mine, theirs = index.vectors(ids[known]), np.ascontiguousarray(vectors[known])
                    differ = (mine.view(np.uint32) != theirs.view(np.uint32)).any(axis=1)
                    wrong.append(ids[known][differ])
        return np.concatenate(wrong)

    def describe(self, source: VectorSource) -> IndexListing:
        """Say which index the space is searched with, and why."""
        return index_listing(self.path(source.key), self.approximate_path(source.key), source, self.policy)

    def discard(self, source: VectorSource) -> None:
        """Forget a space and delete its files, as far as they can be deleted."""
        with self._lock:
            self._snapshots.pop(source.key, None)
            for path in (self.path(source.key), self.approximate_path(source.key)):
                with suppress(OSError):
                    path.unlink()
                    sync_folder(self.folder)

    def keys(self) -> list[str]:
        """Return the keys of spaces that have a file, sorted."""
        try:
            return sorted(path.stem for path in self.folder.glob("*.vectors"))
        except OSError:
            return []

    def _current(self, source: VectorSource) -> Snapshot:
        """Return a snapshot that has caught up with `source`, and keep it."""
        # Read first: what is written from now on is given again by the next catch-up, which accepts it twice.
        wanted = current_origin(source)
        held = self._snapshots.get(source.key)
        if held is not None and held.file is not None and not held.file.is_whole():
            log.warning("%s was cut by another program; it is rebuilt from the catalogue.", held.file.path)
            held = None
        if held is None or held.origin != wanted:
            begun = self._loaded(source, held) or held
            held = (begun and sync_with_source(begun, source, wanted)) or self._rebuilt(source, wanted)
            self._snapshots[source.key] = held
        return held

    def _write(self, snapshot: Snapshot, source: VectorSource) -> None:
        """Append to the file, or write it anew."""
        chunks = snapshot.exact.chunks()
        try:
            if _append(snapshot):
                return
        except (FileNotFoundError, VectorCacheDamaged):
            chunks = source.added_since(0)
        write_vectors_file(self.path(source.key), snapshot.origin, chunks)

    def _read(self, held: Snapshot, source: VectorSource) -> Snapshot:
        """Return the same snapshot with its vectors in memory, if they are few enough for that."""
        if held.file is None or isinstance(held.file.vectors, np.ndarray):
            return held
        try:
            opened = sync_with_source(self._opened(source, READ_BYTES), source, held.origin)
        except (OSError, VectorIndexError):  # the file was replaced just now
            return held
        return held if opened is None else replace(opened, approximate=held.approximate)

    def _opened(self, source: VectorSource, read_bytes: int | None = None) -> Snapshot:
        """Open the file; its vectors are read if they have at most so many bytes."""
        if read_bytes is None:
            read_bytes = READ_BYTES if self._openings[source.key] >= self._read_after else 0
        file = VectorsFile(self.path(source.key), source, read_bytes=read_bytes)
        exact = ExactIndex.from_arrays(file.ids, file.vectors)
        if file.removed:
            exact.remove(file.removed_ids(source))
        return Snapshot(exact, file.origin, file)

    def _loaded(self, source: VectorSource, held: Snapshot | None) -> Snapshot | None:
        """Load a snapshot from the files if they are newer than `held` and usable."""
        try:
            origin = read_origin(self.path(source.key), source, VECTORS)[0]
            if held is not None and held.file is not None and origin == held.file.origin:
                return None
            return replace(self._opened(source), approximate=self._read_approximate(source))
        except FileNotFoundError:
            return None
        except (OSError, VectorIndexError) as error:
            log.warning("The vector index is rebuilt from the catalogue: %s", error)
            return None

    def _read_approximate(self, source: VectorSource) -> ApproximateIndex | None:
        """Load the approximate index, or return None if there is none that fits."""
        try:
            _, more, payload = read_payload_file(self.approximate_path(source.key), source)
            from vitmae_search.vectors.approximate import ApproximateIndex

            return ApproximateIndex.deserialize(payload, more)
        except FileNotFoundError:
            return None
        except (OSError, VectorIndexError) as error:
            log.warning("Searches are exact until the approximate index is made again: %s", error)
            return None

    def _is_fast_enough(self, source: VectorSource) -> bool:
        """Return whether exact searches are surely fast, or the approximate index has the last revision.

        Only the files' first pages are read.
        """
        held = self._snapshots.get(source.key)
        with suppress(OSError, VectorCacheDamaged):
            count = read_origin(self.path(source.key), source, VECTORS)[1]["count"]
            if self.policy.exact_seconds > 0 and 4 * count * source.dimension <= _SURELY_FAST_BYTES:
                return True
        if held is not None and held.approximate is None:
            return False
        with suppress(OSError, VectorCacheDamaged):
            return (
                read_origin(self.approximate_path(source.key), source, PAYLOAD)[0].revision
                == source.revision()
            )
        return False

    def _rebuilt(self, source: VectorSource, wanted: Origin) -> Snapshot:
        """Build a snapshot from the source: in a file, or in memory if that cannot be written."""
        try:
            write_vectors_file(self.path(source.key), wanted, source.added_since(0))
            return self._opened(source)
        except OSError:
            exact = ExactIndex(source.dimension)
            add_from_source(exact, source.added_since(0))
            return Snapshot(exact, wanted)
