"""JPEG files that break off: what is missing of them.

A file that lacks nothing but its end marker is whole. What is missing of another is found by decoding it
with two different continuations: where the pictures differ, the file says nothing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from io import BytesIO

from PIL import Image, ImageChops, JpegImagePlugin

from vitmae_search.errors import DamagedPhoto, UnsupportedPhoto

MAX_MISSING = 0.1
"""Share of a photo's rows that may be missing; with more it is refused."""
MAX_SCANS = 500
"""Cameras and programs write some dozens at most. Each costs a pass over all pixels, for a few bytes."""
_END_MARKER = b"\xff\xd9"
_NOISE = bytes(random.Random(0).choices(range(0xFF), k=1024))  # noqa: S311
_RESTARTS = [bytes([0xFF, 0xD0 + i]) for i in range(8)]
START_OF_SCAN = 0xDA
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_SEQUENTIAL = (0xC0, 0xC1, 0xC3, 0xC5, 0xC7, 0xC9, 0xCB, 0xCD, 0xCF)
# Within a scan, 0xFF is followed by 0x00 or by a restart marker.
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
_MAX_SEGMENTS = 10_000
_ROWS_AT_A_TIME = 256


def check_scans(data: bytes) -> None:
    """Refuse a file with so many scans that decoding it would take minutes.

    Raises:
        UnsupportedPhoto: It has more than `MAX_SCANS`.
    """
    scans = data.count(bytes([0xFF, START_OF_SCAN]))
    if scans > MAX_SCANS:
        raise UnsupportedPhoto(None, f"a JPEG of {scans:,} scans, more than the limit of {MAX_SCANS}")


def complete(data: bytes) -> tuple[bytes, str | None]:
    """Complete a JPEG file that breaks off.

    Args:
        data: The file's bytes.

    Returns:
        The file with an end marker; and a phrase that says what is missing, None where that is all.

    Raises:
        DamagedPhoto: Too much is missing.
    """
    if not _all_scans_have_begun(data):
        raise DamagedPhoto(None, "truncated JPEG file (most of its details are missing)")
    data = data.rstrip(b"\xff")  # half a marker
    completed = data + _END_MARKER
    share = _missing_share(_load(completed), _load(data + _other_continuation(data)))
    if share > MAX_MISSING:
        raise DamagedPhoto(None, f"truncated JPEG file ({share:.0%} of its rows are missing)")
    if share == 0:
        return completed, None
    return (
        completed,
        f"its file breaks off: the last {max(share, 0.001):.1%} of its rows are missing or incomplete",
    )


def _other_continuation(data: bytes) -> bytes:
    """Noise, and the restart markers that the decoder may be waiting for, in their order."""
    scan = data.rfind(bytes([0xFF, START_OF_SCAN]))
    last = max((data.rfind(marker, scan), number) for number, marker in enumerate(_RESTARTS))
    following = 0 if last[0] < 0 else last[1] + 1
    restarts = (_RESTARTS[(following + i) % 8] for i in range(8))
    return _NOISE + b"".join(marker + _NOISE for marker in restarts) + _END_MARKER


def _load(data: bytes) -> Image.Image:
    image = JpegImagePlugin.JpegImageFile(BytesIO(data))
    image.load()
    return image


def _missing_share(image: Image.Image, other: Image.Image) -> float:
    """Return the share of the rows from the first that differs on."""
    for top in range(0, image.height, _ROWS_AT_A_TIME):
        box = (0, top, image.width, min(top + _ROWS_AT_A_TIME, image.height))
        difference = ImageChops.difference(image.crop(box), other.crop(box)).getbbox()
        if difference is not None:
            return 1 - (top + difference[1]) / image.height
    return 0.0


def _all_scans_have_begun(data: bytes) -> bool:
    """Say whether the pixels' data has begun to the last of the scans in which it comes.

    Often there is one scan, or one for each color component. A progressive file has scans of growing detail:
    they are all there if for each component one of them has the last bit of each coefficient.
    """
    waiting: set[tuple[int, int]] = {(0, 0)}
    progressive = False
    for marker, body in segments(data):
        if marker in _PROGRESSIVE or marker in _SEQUENTIAL:
            progressive = marker in _PROGRESSIVE
            waiting = {(name, k) for name in body[6 : 6 + 3 * body[5] : 3] for k in range(64)}
        elif marker == START_OF_SCAN:
            names = body[1 : 1 + 2 * body[0] : 2]
            first, last, bits = body[1 + 2 * body[0] :][:3] if progressive else (0, 63, 0)
            if bits & 0x0F == 0:
                waiting -= {(name, k) for name in names for k in range(first, last + 1)}
    return not waiting


def segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and the body of each segment of the file itself, not of a thumbnail inside one."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        match = _MARKER.search(data, at)
        if match is None:
            return
        at = match.end()
        length = int.from_bytes(data[at : at + 2], "big")
        yield match[1][0], data[at + 2 : at + length]
        at += max(length, 2)
