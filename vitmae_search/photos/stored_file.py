"""A file that is read in parts, wherever it lies: on a disk, or on an object storage.

Of an object, blocks are read as they are needed. A process that decodes has no network: it asks the process
that it was forked from, which keeps the latest blocks for all of them.
"""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict

from vitmae_search.address import is_address
from vitmae_search.errors import PhotoTooLarge, UnreadablePhoto
from vitmae_search.photos.file_system import storage_of
from vitmae_search.photos.worker_process import call_in_parent
from vitmae_search.records import Stamp
from vitmae_search.regular_file import open_regular_file

_BLOCK = 1 << 20
_KEPT = 64
"""Blocks of all objects that are kept in memory."""
_KEPT_BY_FILE = 4


def open_file(path: str, most_bytes: int | None = None) -> io.BufferedReader:
    """Open a file, or an object of a storage, to read parts of it.

    Args:
        path: The file, or its address.
        most_bytes: So much of an object is read at most.

    Raises:
        OSError: The file cannot be opened, or is no regular file.
        UnreadablePhoto: The object is absent or not permitted; `UnreachablePhoto` where its bucket is.
    """
    return io.BufferedReader(StoredFile(path, most_bytes)) if is_address(path) else open_regular_file(path)


class StoredFile(io.RawIOBase):
    """An object of a storage, read a block at a time. Used by one thread at a time."""

    def __init__(self, address: str, most_bytes: int | None = None) -> None:
        """Ask for the object's size.

        Args:
            address: Its address.
            most_bytes: So much of it is read at most; None is all, as often as is asked for.

        Raises:
            UnreadablePhoto: It is absent or not permitted; `UnreachablePhoto` where its bucket is.
        """
        self._stamp = call_in_parent(_stamp, address)
        self._most = most_bytes
        self._read = 0
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, which costs nothing.

        Args:
            offset: In bytes.
            whence: From where: `os.SEEK_SET`, `SEEK_CUR` or `SEEK_END`.
        """
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._stamp.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read up to the end of a block.

        Raises:
            UnreadablePhoto: As of `ObjectStorage.read_part`, or not all of a block came.
            PhotoTooLarge: More than `most_bytes` would be read.
        """
        size = min(len(buffer), self._stamp.size - self._at)
        if size <= 0:
            return 0
        number, start = divmod(self._at, _BLOCK)
        data = self._block(number)[start : start + size]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        if self._most is not None and self._read >= self._most:
            raise PhotoTooLarge(
                self._stamp.path,
                f"more than {self._most / 2**30:g} GiB of it would have to be read from its storage; copy it "
                "to a folder, and index that",
            )
        data = self._blocks[number] = call_in_parent(_read_block, self._stamp, number)
        self._read += len(data)
        if len(self._blocks) > _KEPT_BY_FILE:
            self._blocks.popitem(last=False)
        return data


class _BlockCache:
    """The latest blocks of all objects. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[Stamp, int], bytes] = OrderedDict()

    def get(self, stamp: Stamp, number: int) -> bytes:
        key = stamp, number
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key]
        start = number * _BLOCK
        size = min(_BLOCK, stamp.size - start)
        data = storage_of(stamp.path).read_part(stamp.path, start, size)
        if len(data) < size:
            raise UnreadablePhoto(stamp.path, f"only {len(data):,} of {size:,} bytes of it came; index again")
        with self._lock:
            self._blocks[key] = data
            if len(self._blocks) > _KEPT:
                self._blocks.popitem(last=False)
        return data


_CACHE = _BlockCache()


def _stamp(address: str) -> Stamp:
    return storage_of(address).stamp(address)


def _read_block(stamp: Stamp, number: int) -> bytes:
    return _CACHE.get(stamp, number)
