"""Reading a photo's bytes, once, and their digest."""

from __future__ import annotations

import hashlib
import os
import stat

from vitmae_search.errors import PhotoTooLarge, UnreadablePhoto

MAX_BYTES = 1 << 30

# O_NONBLOCK: a FIFO that took a photo's place must not hold the run; regular files ignore it.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def read_photo(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> bytes:
    """The whole file. Only regular files are read.

    Raises `UnreadablePhoto` (absent, not permitted, a folder, a disk error) or `PhotoTooLarge`
    (more than `max_bytes`).
    """
    try:
        handle = os.open(path, _FLAGS)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise UnreadablePhoto(path, "not a file")
            if status.st_size > max_bytes:
                raise PhotoTooLarge(path, _too_large(status.st_size, max_bytes))
            with open(handle, "rb", closefd=False) as file:
                data = file.read(max_bytes + 1)  # it may have grown since
        finally:
            os.close(handle)
    except OSError as error:
        raise UnreadablePhoto(path, error.strerror or str(error)) from error
    except ValueError as error:  # a null byte in the name
        raise UnreadablePhoto(path, str(error)) from error
    if len(data) > max_bytes:
        raise PhotoTooLarge(path, _too_large(len(data), max_bytes))
    return data


def digest(data: bytes) -> str:
    """SHA-256 of a file's bytes, in lower-case hex: what makes two files the same content."""
    return hashlib.sha256(data).hexdigest()


def _too_large(size: int, limit: int) -> str:
    return f"{size / 1e6:,.1f} MB, more than the limit of {limit / 1e6:,.1f} MB"
