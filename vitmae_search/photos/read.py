"""Read a photo's bytes, once, and their digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from vitmae_search.errors import MemoryShort, PhotoTooLarge, UnreadablePhoto
from vitmae_search.photos.video import read_frame
from vitmae_search.records import VideoFrame
from vitmae_search.regular_file import open_regular_file

_MAX_BYTES = 1 << 30


def read_photo(path: str | os.PathLike[str], *, max_bytes: int = _MAX_BYTES) -> bytes:
    """Read a whole file. Only regular files are read. Of a video's frame it is a JPEG, which is made then.

    Args:
        path: The file.
        max_bytes: Largest size that is read.

    Raises:
        UnreadablePhoto: It is absent, not permitted or a folder, or the disk has an error.
        PhotoTooLarge: It has more than `max_bytes`.
    """
    frame = VideoFrame.of(os.fspath(path))
    if frame is not None:
        return read_frame(frame.video, frame.seconds)
    try:
        with open_regular_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise PhotoTooLarge(path, _too_many_bytes(size, max_bytes))
            data = file.read(max_bytes + 1)  # it may have grown since
    except OSError as error:
        raise UnreadablePhoto(path, error.strerror or str(error)) from error
    except ValueError as error:  # a null byte in the name
        raise UnreadablePhoto(path, str(error)) from error
    if len(data) > max_bytes:
        raise PhotoTooLarge(path, _too_many_bytes(len(data), max_bytes))
    return data


def digest(data: bytes) -> str:
    """Return the SHA-256 of a file's bytes in lower-case hex. Files with one digest are one content."""
    return hashlib.sha256(data).hexdigest()


@contextmanager
def photo_fits_memory(path: str | os.PathLike[str] | None) -> Iterator[None]:
    """Turn a MemoryError into `MemoryShort` for the photo at `path`."""
    try:
        yield
    except MemoryError as error:
        raise MemoryShort(path, "too large for this machine's memory") from error


def _too_many_bytes(size: int, limit: int) -> str:
    return f"{size / 1e6:,.1f} MB, more than the limit of {limit / 1e6:,.1f} MB"
