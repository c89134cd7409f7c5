"""The video of a photo: beside it, as of a Live photo, or behind the end of its JPEG, as of a motion photo.

A motion photo says in its XMP how many bytes from its end its video begins: `MicroVideoOffset` or, since
2020, the `Length` of the item `MotionPhoto`
(https://developer.android.com/media/platform/motion-photo-format).
"""

from __future__ import annotations

import os
import re

from vitmae_search.errors import PhotoError
from vitmae_search.photos.file_system import file_system
from vitmae_search.photos.live import VIDEO_FORMS, may_be_live
from vitmae_search.photos.stored_file import open_file
from vitmae_search.records import MovingPart

_HEAD = 512 * 1024
"""Bytes of a JPEG that its XMP lies in."""
_MOST = 256 * 2**20
"""Bytes of a video in a JPEG, at most."""
_OFFSET = re.compile(rb'MicroVideoOffset(?:="|>)(\d{1,10})')
_ITEM = re.compile(rb"<[\w:]*Item\b[^<>]{0,500}>")
_LENGTH = re.compile(rb'Length="(\d{1,10})"')


def find_moving_part(path: str) -> MovingPart | None:
    """The moving part of a photo; None where it has none, or its file cannot be read."""
    if not may_be_live(path):
        return None
    try:
        beside = file_system(path).sizes(os.path.splitext(path)[0], VIDEO_FORMS)
        file, size = next(iter(beside.items()), (None, 0))
        return _in_jpeg(path) if file is None else MovingPart(file, 0, size)
    except (OSError, PhotoError):
        return None


def _in_jpeg(path: str) -> MovingPart | None:
    with open_file(path) as file:
        length = _length_in_xmp(file.read(_HEAD))
        size = file.seek(0, os.SEEK_END)
        if not 16 < length <= min(size, _MOST):
            return None
        file.seek(size - length)
        is_video = file.read(8)[4:] == b"ftyp"
    return MovingPart(path, size - length, length) if is_video else None


def _length_in_xmp(head: bytes) -> int:
    """How many bytes of a file's end are its video, 0 for none."""
    items = (item.group() for item in _ITEM.finditer(head) if b'"MotionPhoto"' in item.group())
    found = next(filter(None, map(_LENGTH.search, items)), None) or _OFFSET.search(head)
    return 0 if found is None else int(found.group(1))
