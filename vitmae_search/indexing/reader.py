"""Read pending files ahead of the model: digest each, look it up, and decode what is not known.

Torch-free. A few workers decode in threads, as decoding and hashing release Python's lock; where there are
many, each has a child process (see `photos.decode_pool`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from vitmae_search.errors import DamagedPhoto, clear_frames
from vitmae_search.indexing.plan import PendingFile
from vitmae_search.photos import PhotoDecoder
from vitmae_search.photos.decode_pool import DecodePool, WorkerDied
from vitmae_search.photos.decode_worker import DecodedFile, DecodeHandler, FileError
from vitmae_search.photos.prefetch import prefetch
from vitmae_search.records import PhotoMetadata

_THREADS_SUFFICE = 4
"""Workers that share Python's lock well: each holds it for up to a sixth of its time."""
_WORK_PER_PROCESS = 64
"""Small files for each process that make up for the half second of its start. A megabyte counts as three."""
_GROUP_SIZE = 8
_GROUP_BYTES = 1 << 24
"""Limits of the files that are read and looked up together; their bytes are in memory meanwhile."""


@dataclass(frozen=True, slots=True)
class KnownContent:
    """What is known of a digest before its file is decoded.

    Attributes:
        content_id: The catalogue's id for this content, None where it has none.
        embedded: Whether the vector is at hand, so that the file need not be decoded.
    """

    content_id: int | None
    embedded: bool


UNKNOWN_CONTENT = KnownContent(None, False)
Lookup = Callable[[Sequence[str]], Mapping[str, KnownContent]]
"""From digests to what is known of them; those that it leaves out are `UNKNOWN_CONTENT`."""


@dataclass(frozen=True, slots=True, eq=False)
class FetchedFile:
    """A pending file that was read.

    It has `pixels` and `metadata` if its content is to be embedded, or an `error`. It has neither where the
    vector is at hand (`known.embedded`), or where another file of this run brings the same content.

    Attributes:
        file: The file as it was planned.
        digest: SHA-256 of its bytes in hex, None where they could not be read.
        known: What was known of the digest.
        metadata: From the decoded file.
        pixels: What the plugin's `prepare` gave.
        error: Why this file cannot be used.
    """

    file: PendingFile
    digest: str | None
    known: KnownContent
    metadata: PhotoMetadata | None = None
    pixels: NDArray[Any] | None = None
    error: FileError | None = None


def read_ahead(
    files: Sequence[PendingFile],
    lookup: Lookup,
    decoder: PhotoDecoder,
    *,
    workers: int,
    batch_size: int,
    processes: bool | None = None,
) -> Generator[FetchedFile, None, None]:
    """Yield each file, in order, read in parallel. Closing the generator ends what has begun.

    Args:
        files: The files to read.
        lookup: Called by the worker threads, with the digests of several files at a time.
        decoder: How files are decoded.
        workers: Number of worker threads.
        batch_size: About how many files are read ahead.
        processes: Whether each worker has a child process; None: where that pays.
    """
    if processes is None:
        processes = processes_pay(files, workers)
    # Small groups for few files, so that none waits long for the last one.
    group_size = max(1, min(_GROUP_SIZE, len(files) // (16 * workers)))
    ahead = batch_size // group_size + 2 * workers
    pool = DecodePool(partial(DecodeHandler, decoder), processes=processes)
    groups = group_files(files, group_size)
    fetched = prefetch(groups, PhotoReader(lookup, pool), workers=workers, ahead=ahead)
    with closing(fetched), closing(pool):  # the processes end first, whatever they decode
        for group in fetched:
            yield from group


def processes_pay(files: Sequence[PendingFile], workers: int) -> bool:
    """Say whether decoding these files in child processes is faster than in threads.

    Args:
        files: The files to decode.
        workers: How many are decoded at a time.
    """
    work = len(files) + 3 * sum(file.stamp.size for file in files) / 1e6
    return workers > _THREADS_SUFFICE and work >= _WORK_PER_PROCESS * workers


def group_files(
    files: Sequence[PendingFile], max_files: int, max_bytes: int = _GROUP_BYTES
) -> Iterator[list[PendingFile]]:
    """Yield the files in groups, in order.

    Args:
        files: The files to group.
        max_files: Most files in a group.
        max_bytes: Most bytes in a group of more than one file.
    """
    group: list[PendingFile] = []
    size = 0
    for file in files:
        if group and (len(group) == max_files or size + file.stamp.size > max_bytes):
            yield group
            group, size = [], 0
        group.append(file)
        size += file.stamp.size
    if group:
        yield group


class PhotoReader:
    """Reads groups of files; called by many threads.

    Each unknown content is decoded once, for the first file that brings it.
    """

    def __init__(self, lookup: Lookup, pool: DecodePool) -> None:
        self._lookup = lookup
        self._pool = pool
        self._seen_digests: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, files: Sequence[PendingFile]) -> list[FetchedFile]:
        """Read the files, and decode those with an unknown content.

        Where the worker's process dies, each file is read again alone. One at which it dies again has an
        error. Raises only what ends the whole run (`StorageError`, bugs).
        """
        new_digests: set[str] = set()
        try:
            return self._fetch(files, new_digests)
        except WorkerDied:
            with self._lock:
                self._seen_digests -= new_digests
        return [self._fetch_alone(file) for file in files]

    def _fetch_alone(self, file: PendingFile) -> FetchedFile:
        new_digests: set[str] = set()
        try:
            return self._fetch([file], new_digests)[0]
        except WorkerDied as died:
            error = DamagedPhoto(file.stamp.path, died.reason)
            # With the digest, if it is new: copies of this file fail for the same reason.
            return FetchedFile(file, next(iter(new_digests), None), UNKNOWN_CONTENT, error=error)

    def _fetch(self, files: Sequence[PendingFile], new_digests: set[str]) -> list[FetchedFile]:
        """Read, look up, decode. `new_digests` receives the digests that no other file had before."""
        worker = self._pool.worker()
        digests: list[str | FileError] = worker.call("read", [file.stamp.path for file in files])
        known = self._lookup([digest for digest in digests if isinstance(digest, str)])
        wanted = [
            isinstance(digest, str)
            and not known.get(digest, UNKNOWN_CONTENT).embedded
            and self._first_to_read(digest, new_digests)
            for digest in digests
        ]
        decoded = iter(worker.call("decode", wanted))
        fetched = [
            _fetched_file(file, digest, known, next(decoded) if want else None)
            for file, digest, want in zip(files, digests, wanted, strict=True)
        ]
        for one in fetched:
            if one.error is not None:
                clear_frames(one.error)
        return fetched

    def _first_to_read(self, digest: str, new_digests: set[str]) -> bool:
        """Whether this content is to be decoded here: no other file had it before."""
        with self._lock:
            first = digest not in self._seen_digests
            self._seen_digests.add(digest)
        if first:
            new_digests.add(digest)
        return first


def _fetched_file(
    file: PendingFile,
    digest: str | FileError,
    known: Mapping[str, KnownContent],
    decoded: DecodedFile | FileError | None,
) -> FetchedFile:
    if not isinstance(digest, str):
        return FetchedFile(file, None, UNKNOWN_CONTENT, error=digest)
    content = known.get(digest, UNKNOWN_CONTENT)
    if isinstance(decoded, tuple):
        return FetchedFile(file, digest, content, *decoded)
    return FetchedFile(file, digest, content, error=decoded)
