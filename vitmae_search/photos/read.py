"""Read a photo's bytes, once, and their digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from vitmae_search.address import is_address
from vitmae_search.errors import MemoryShort, UnsupportedPhoto
from vitmae_search.photos.file_system import file_system
from vitmae_search.photos.video import read_frame
from vitmae_search.records import VideoFrame, is_video_name

_MAX_BYTES = 1 << 30


def read_photo(path: str | os.PathLike[str], *, max_bytes: int = _MAX_BYTES) -> bytes:
    """Read a whole file. Only regular files are read. Of a video's frame it is a JPEG, which is made then.

    Args:
        path: The file, or its address on a storage.
        max_bytes: Largest size that is read.

    Raises:
        UnsupportedPhoto: It is a video.
        UnreadablePhoto: It is absent, not permitted or a folder, or the disk has an error.
        PhotoTooLarge: It has more than `max_bytes`.
    """
    frame = VideoFrame.of(os.fspath(path))
    if frame is not None:
        return read_frame(frame.video, frame.seconds)
    if is_video_name(os.fspath(path)) and not file_system(path).is_gone(os.fspath(path)):
        raise UnsupportedPhoto(path, "is a video; name a photo, or a frame that the library has of it")
    return file_system(path).read(path, max_bytes)


def is_stored_photo(path: str) -> bool:
    """Whether it is a photo on a storage, which is read whole. Of videos there, decoders ask for parts."""
    return is_address(path) and VideoFrame.of(path) is None


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
