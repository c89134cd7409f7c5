"""Read files of a storage ahead of their decoding: many requests at a time, as each one is a wait."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from vitmae_search.address import bucket_of
from vitmae_search.errors import (
    PhotoError,
    StorageUnreachable,
    UnreachablePhoto,
    UnreadablePhoto,
    clear_frames,
    display_path,
)
from vitmae_search.indexing.plan import PendingFile
from vitmae_search.photos import is_stored_photo, photo_fits_memory, read_photo

_READERS = 16
_MOST_FILES = 256
_MOST_BYTES = 1 << 28
"""Limits of what is being read or waits for its decoding; a single larger file is read alone."""


class StoredFiles:
    """The files of a run that lie on a storage, read in their order. Close it at the end.

    Any thread may `take`. A file is read once by this; whoever takes it again reads it then.
    """

    def __init__(self) -> None:
        """Begin with no file; see `ahead_of`."""
        self._rest: deque[tuple[str, int]] = deque()
        self._reads: dict[str, tuple[Future[bytes | PhotoError], int]] = {}
        self._taken: set[str] = set()  # before they were read ahead
        self._bytes = 0
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def ahead_of(self, files: Iterable[PendingFile]) -> Iterator[PendingFile]:
        """Give the files in their order, with the reading of those on a storage begun some files earlier.

        Args:
            files: The files of the run; those on disk, and frames of videos, are left alone.
        """
        ahead: deque[PendingFile] = deque()
        for file in files:
            if is_stored_photo(file.stamp.path):
                with self._lock:
                    self._rest.append((file.stamp.path, file.stamp.size))
                self._read_ahead()
            elif not ahead:
                yield file
                continue
            ahead.append(file)
            if len(ahead) > _MOST_FILES:
                yield ahead.popleft()
        yield from ahead

    def take(self, file: PendingFile) -> bytes | PhotoError:
        """The bytes of a file, or why it cannot be read.

        Raises:
            StorageUnreachable: Nothing can be read of its bucket now.
        """
        path = file.stamp.path
        with self._lock:
            reading, size = self._reads.pop(path, (None, 0))
            if reading is None:
                self._taken.add(path)
        found = _read(path, file.stamp.size) if reading is None else reading.result()
        with self._lock:
            self._bytes -= size
        self._read_ahead()
        raise_if_unreachable(path, found)
        return found

    def close(self) -> None:
        """Read no more, and wait for what has begun."""
        with self._lock:
            self._rest.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _read_ahead(self) -> None:
        with self._lock:
            while self._rest and len(self._reads) < _MOST_FILES:
                path, size = self._rest[0]
                if path in self._taken:
                    self._rest.popleft()
                    continue
                if self._reads and self._bytes + size > _MOST_BYTES:
                    return
                self._rest.popleft()
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="storage")
                self._reads[path] = self._pool.submit(_read, path, size), size
                self._bytes += size


def raise_if_unreachable(path: str, found: object) -> None:
    """End the run where what came of reading a file says that nothing can be read of its bucket now.

    Args:
        path: The file's address.
        found: What was read, or an error.

    Raises:
        StorageUnreachable: It is so.
    """
    if isinstance(found, UnreachablePhoto):
        raise StorageUnreachable(
            f"{display_path(bucket_of(path))} cannot be read now: {found.reason}. What was done is "
            "kept; run the same command again to go on."
        )


def _read(path: str, size: int) -> bytes | PhotoError:
    try:
        with photo_fits_memory(path):
            data = read_photo(path)
    except PhotoError as error:
        clear_frames(error)
        return error
    if len(data) < size:  # which may decode, to half a picture
        return UnreadablePhoto(path, f"only {len(data):,} of its {size:,} bytes came; index again")
    return data
