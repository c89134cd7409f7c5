"""Frames of videos, which the package av decodes where it is installed (the extra `video`).

A frame is an entry of the catalogue like a photo, named by its video and its time (`records.VideoFrame`). Its
bytes are a JPEG that is made when they are read, always the same for the same file and decoder. Frames are
key frames, which the decoder can go to at once, at least two seconds apart, without those that are almost
equal to the one before.

These functions parse foreign files, so they are called in processes that can be killed.
"""

from __future__ import annotations

import importlib.util
import io
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import IFD, Base

from vitmae_search.errors import DamagedPhoto, PhotoError, PhotoTooLarge, UnreadablePhoto, UnsupportedPhoto
from vitmae_search.photos.stored_file import open_file

NEEDS_AV = "videos need the package av: pip install 'vitmae-search[video]'"

_LEAST_SECONDS = 2.0
_MOST_FRAMES = 100
_SIDE = 1920
_QUALITY = 90
_MAX_PIXELS = 100_000_000
_SAME = 6.0
"""The largest mean difference of two frames' gray values, 0 to 255, that makes them almost equal."""
_TOLERANCE = 0.002
_RUN_UPS = (0.0, 5.0, 20.0)
"""Seconds before a frame at which decoding begins: without an index a container is not exact."""
_MOST_READ = 1 << 30
"""Bytes that are read at most of a video on a storage, to find its frames, or one of them."""
_LONGEST_WAY = 1200
"""Frames that are decoded at most to come to a time."""
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,asf,mpeg"
"""The containers that are opened. Others, such as playlists, name further files and addresses."""
_LOCAL_DATE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")


def can_be_decoded() -> bool:
    """Say whether the package that decodes videos is installed."""
    return importlib.util.find_spec("av") is not None


def find_frames(path: str) -> list[float]:
    """The times of a video's frames that stand for it, in seconds from its beginning.

    Raises:
        PhotoError: It cannot be read, or shows nothing.
    """
    with _opened(path) as (container, stream):
        start, length = _times(container, stream)
        step = max(_LEAST_SECONDS, length / _MOST_FRAMES)
        found: list[float] = []
        last: NDArray[np.int16] | None = None
        for number in range(min(_MOST_FRAMES, int(length / step) + 1)):
            _seek(container, stream, start + number * step)
            frame: Any = next(container.decode(stream), None)
            seconds = None if frame is None or frame.time is None else round(frame.time - start, 3)
            if seconds is None or seconds < 0 or (found and seconds <= found[-1]):
                continue
            small = np.asarray(frame.reformat(32, 32, "gray").to_ndarray(), np.int16)
            if last is None or float(np.abs(small - last).mean()) > _SAME:
                found.append(seconds)
                last = small
    if not found:
        raise DamagedPhoto(path, "the video shows nothing")
    return found


def read_frame(path: str, seconds: float) -> bytes:
    """A frame as the bytes of a JPEG, upright and at most 1920 pixels wide and high.

    Args:
        path: The video.
        seconds: One of `find_frames`.

    Raises:
        PhotoError: The video cannot be read, or has no frame at this time.
    """
    with _opened(path) as (container, stream):
        start, _ = _times(container, stream)
        for earlier in _RUN_UPS:
            _seek(container, stream, start + max(0.0, seconds - earlier))
            frame = _first_from(container.decode(stream), start + seconds - _TOLERANCE)
            if frame is not None and frame.time - start <= seconds + _TOLERANCE:
                return _encode(frame, _taken_at(container.metadata, seconds))
    raise DamagedPhoto(path, f"the video has no picture at {seconds:.3f} s")


def _first_from(frames: Iterator[Any], moment: float) -> Any:
    """The first frame from a moment on; None where it is too far."""
    near = itertools.islice(frames, _LONGEST_WAY)
    return next((frame for frame in near if frame.time is not None and frame.time >= moment), None)


@contextmanager
def _opened(path: str) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream. What av raises becomes a `PhotoError`."""
    if not can_be_decoded():
        raise UnsupportedPhoto(path, NEEDS_AV)
    import av

    reader = _Reader()
    try:
        with (
            open_file(path, _MOST_READ) as reader.file,
            av.open(
                reader, mode="r", metadata_errors="replace", options={"format_whitelist": _FORMATS}
            ) as container,
        ):
            if not container.streams.video:
                raise UnsupportedPhoto(path, "there is no video in it")
            stream = container.streams.video[0]
            if stream.codec_context is None or stream.time_base is None:
                raise UnsupportedPhoto(path, "a kind of video that is not decoded here")
            stream.codec_context.thread_count = 1  # each video has a process of its own
            if stream.codec_context.width * stream.codec_context.height > _MAX_PIXELS:
                raise PhotoTooLarge(path, "the video has more pixels than can be decoded")
            yield container, stream
    except Exception as error:  # malformed values raise nearly anything
        if isinstance(error, PhotoError | MemoryError):
            raise
        raise _photo_error(path, reader.error or error) from error
    if reader.error is not None:
        raise _photo_error(path, reader.error)


class _Reader:
    """A file as av reads it. An error is kept, for av may take it for the file's end."""

    file: BinaryIO
    error: Exception | None = None

    def read(self, size: int) -> bytes:
        try:
            return self.file.read(size)
        except Exception as error:
            self.error = error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()


def _photo_error(path: str, error: Exception) -> Exception:
    """The `PhotoError` for what reading or decoding a video raised."""
    import av

    if isinstance(error, PhotoError | MemoryError):
        return error
    text = getattr(error, "strerror", None) or str(error)
    if isinstance(error, OSError) and not isinstance(error, av.FFmpegError):
        return UnreadablePhoto(path, text)
    return DamagedPhoto(path, f"damaged video ({text})")


def _times(container: Any, stream: Any) -> tuple[float, float]:
    """When it begins, and how long it is, in seconds."""
    start = float((stream.start_time or 0) * stream.time_base)
    if stream.duration is not None:
        return start, float(stream.duration * stream.time_base)
    return start, (container.duration or 0) / 1e6


def _seek(container: Any, stream: Any, seconds: float) -> None:
    """Go to the last key frame that is not after this time. 0.5 ms more, since times are rounded to 1 ms."""
    container.seek(max(0, int((seconds + 0.0005) / stream.time_base)), stream=stream)


def _encode(frame: Any, taken_at: datetime | None) -> bytes:
    image: Image.Image = frame.to_image()
    if frame.rotation:
        image = image.rotate(frame.rotation, expand=True)  # exact for quarter turns
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    if taken_at is not None:
        exif.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = f"{taken_at:%Y:%m:%d %H:%M:%S}"
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY, exif=exif)
    return stream.getvalue()


def _taken_at(tags: dict[str, str], seconds: float) -> datetime | None:
    """When a frame was taken, in local time, which Apple's cameras write; other times are UTC or unknown."""
    date = _LOCAL_DATE.match(tags.get("com.apple.quicktime.creationdate", ""))
    try:
        return None if date is None else datetime.fromisoformat(date[1]) + timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        return None
