"""Live and motion photos: the video beside a still, or behind the end of its JPEG.

A Live photo is two files of one name. A motion photo says in its XMP how many bytes from its end its video
begins: `MicroVideoOffset` or, since 2020, the `Length` of the item `MotionPhoto`
(https://developer.android.com/media/platform/motion-photo-format).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from vitmae_search.address import is_address
from vitmae_search.records import MovingPart
from vitmae_search.regular_file import open_regular_file

_VIDEOS = (".mov", ".mp4")
_STILLS = (".heic", ".heif", ".jpg", ".jpeg")
_HEAD = 512 * 1024
"""Bytes of a JPEG that its XMP lies in."""
_MOST = 256 * 2**20
"""Bytes of a video in a JPEG, at most."""
_OFFSET = re.compile(rb'MicroVideoOffset(?:="|>)(\d{1,10})')
_ITEM = re.compile(rb"<[\w:]*Item\b[^<>]{0,500}>")
_LENGTH = re.compile(rb'Length="(\d{1,10})"')


def live_stems(names: Iterable[str]) -> set[str]:
    """The names without suffix of a folder's photos beside which a video is a part of a Live photo."""
    parts = (os.path.splitext(name.lower()) for name in names)
    return {stem for stem, suffix in parts if suffix in _STILLS}


def is_part_of_live_photo(name: str, stems: set[str]) -> bool:
    """Say whether a video is the moving part of a photo beside it.

    Args:
        name: The video's name.
        stems: The `live_stems` of its folder.
    """
    stem, suffix = os.path.splitext(name.lower())
    return suffix in _VIDEOS and stem in stems


def find_moving_part(path: str) -> MovingPart | None:
    """The moving part of a photo; None where it has none, or its file cannot be read."""
    stem, suffix = os.path.splitext(path)
    if suffix.lower() not in _STILLS or is_address(path):
        return None
    beside = (stem + form for video in _VIDEOS for form in (video, video.upper()))
    file = next(filter(os.path.isfile, beside), None)
    if file is None:
        return _in_jpeg(path)
    try:
        return MovingPart(file, 0, os.path.getsize(file))
    except OSError:  # it has just gone
        return None


def _in_jpeg(path: str) -> MovingPart | None:
    try:
        with open_regular_file(path) as file:
            length = _length_in_xmp(file.read(_HEAD))
            size = os.fstat(file.fileno()).st_size
            if not 16 < length <= min(size, _MOST):
                return None
            file.seek(size - length)
            is_video = file.read(8)[4:] == b"ftyp"
    except OSError:
        return None
    return MovingPart(path, size - length, length) if is_video else None


def _length_in_xmp(head: bytes) -> int:
    """How many bytes of a file's end are its video, 0 for none."""
    items = (item.group() for item in _ITEM.finditer(head) if b'"MotionPhoto"' in item.group())
    found = next(filter(None, map(_LENGTH.search, items)), None) or _OFFSET.search(head)
    return 0 if found is None else int(found.group(1))
