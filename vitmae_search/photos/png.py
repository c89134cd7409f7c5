"""The parts of a PNG file that decoding needs, so that nothing else in it can make a photo unreadable."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_INFLATED = 1 << 20
"""Bytes of a color profile or of XMP; PIL refuses a whole file for a chunk that inflates to more."""
_TRUE_COLOR_TRANSPARENCY = {0: 2, 2: 6}  # bytes of tRNS by color type
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_NEEDED_TEXTS = (b"XML:com.adobe.xmp", b"Raw profile type exif")


def needed_chunks(data: bytes) -> bytes:
    """Return a PNG file without the chunks that decoding does not need, or that are damaged.

    Kept are the critical chunks as they are, and, if they are whole, transparency, color profile, EXIF and
    XMP. An animation's chunks go, too: the image that is decoded is not among them.

    Args:
        data: The file's bytes; returned themselves where there is nothing to leave out.
    """
    kept: list[tuple[int, int]] = [(0, len(_SIGNATURE))]
    for kind, start, end in _chunks(data):
        if kind[0] & 0x20 and not _is_needed(data, kind, start, end):
            continue
        if kind == b"PLTE" and data[25:26] != b"\3" and not _is_whole(data, start, end):
            continue  # a mere suggestion, where the pixels are no numbers of a palette
        if kept[-1][1] == start:
            start = kept.pop()[0]
        kept.append((start, end))
    if len(kept) == 1 and kept[0][1] == len(data):
        return data
    view = memoryview(data)
    return b"".join(view[start:end] for start, end in kept)


def has_late_tags(data: bytes) -> bool:
    """Say whether a PNG file has EXIF or XMP after its pixels."""
    seen_pixels = False
    for kind, start, end in _chunks(data):
        seen_pixels = seen_pixels or kind == b"IDAT"
        is_tag = kind == b"eXIf" or kind in _TEXT_CHUNKS
        if seen_pixels and is_tag and _is_needed(data, kind, start, end):
            return True
    return False


def has_own_still(data: bytes) -> bool:
    """Say whether a PNG file is an animation, and the image that is decoded is not one of its frames."""
    animated = False
    for kind, _, _ in _chunks(data):
        if kind == b"IDAT":
            return animated
        if kind == b"fcTL":
            return False
        animated = animated or kind == b"acTL"
    return False


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk, where it starts, and where it ends; the last may be cut off."""
    start = len(_SIGNATURE)
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = min(start + 12 + length, len(data))
        yield kind, start, end
        if kind == b"IEND":
            return
        start = end
    if start < len(data):
        yield b"\0\0\0\0", start, len(data)


def _is_needed(data: bytes, kind: bytes, start: int, end: int) -> bool:
    """Say whether an ancillary chunk is needed, and whole."""
    if kind not in (b"tRNS", b"iCCP", b"eXIf", *_TEXT_CHUNKS):
        return False
    if kind in _TEXT_CHUNKS and not data[start + 8 : end].startswith(_NEEDED_TEXTS):
        return False
    if not _is_whole(data, start, end):
        return False
    body = data[start + 8 : end - 4]
    if kind == b"tRNS":
        return len(body) >= _TRUE_COLOR_TRANSPARENCY.get(data[25], 1)
    keyword, _, rest = body.partition(b"\0")
    if kind == b"iCCP" or kind == b"zTXt":
        return bool(keyword) and rest[:1] == b"\0" and _inflates(rest[1:])
    if kind == b"iTXt":
        parts = rest[2:].split(b"\0", 2)  # language, translated keyword, text
        if len(parts) < 3:
            return False
        return _inflates(parts[2]) if rest[:1] == b"\1" else len(parts[2]) <= _MAX_INFLATED
    return kind == b"eXIf" or len(rest) <= _MAX_INFLATED


def _is_whole(data: bytes, start: int, end: int) -> bool:
    if end - start != 12 + int.from_bytes(data[start : start + 4], "big"):
        return False
    return zlib.crc32(memoryview(data)[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")


def _inflates(compressed: bytes) -> bool:
    """Say whether bytes inflate, and to no more than the limit."""
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(compressed, _MAX_INFLATED + 1)
    except zlib.error:
        return False
    return stream.eof and len(inflated) <= _MAX_INFLATED
