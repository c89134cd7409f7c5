"""JPEG XL, which the package pillow-jxl-plugin decodes where it is installed (the extra `jxl`)."""

from __future__ import annotations

import importlib.util
from io import BytesIO
from typing import Any

from PIL import ImageFile
from PIL.ExifTags import Base

from vitmae_search.errors import UnsupportedPhoto

_CODESTREAM = b"\xff\x0a"
_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_SIDE_BITS = (9, 13, 18, 30)
_RATIOS = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Width to height; the first stands for a width of its own."""


def is_jxl(head: bytes) -> bool:
    """Say whether a file begins as JPEG XL, bare or in a container."""
    return head.startswith((_CODESTREAM, _CONTAINER))


def can_be_decoded() -> bool:
    """Say whether the package that decodes JPEG XL is installed."""
    return importlib.util.find_spec("pillow_jxl") is not None


class JxlImageFile(ImageFile.ImageFile):
    """A JPEG XL file. Its size is known when it is opened, its pixels and tags when it is loaded.

    The package's own class decodes a file when it is opened, before anyone can look at its size.
    """

    format = "JXL"
    format_description = "JPEG XL"

    def _open(self) -> None:
        if not can_be_decoded():
            raise UnsupportedPhoto(None, "JPEG XL needs the package pillow-jxl-plugin")
        assert self.fp is not None
        self._data: bytes | None = self.fp.read()
        self._size = _size(_codestream(self._data))
        self._mode = "RGB"

    def load(self) -> Any:
        """Decode the pixels, and read the tags."""
        if self._data is not None:
            from pillow_jxl import JpegXLImagePlugin

            JpegXLImagePlugin.DECODE_THREADS = 0  # each photo has a thread or process of its own
            decoded: Any = JpegXLImagePlugin.JXLImageFile(BytesIO(self._data), "")
            self._data = None
            decoded.load()
            self.im, self._mode, self._size, self.info = decoded.im, decoded.mode, decoded.size, decoded.info
            if not decoded.jpeg:  # the decoder has turned it; of a packed JPEG it gives the JPEG as it was
                self.getexif().pop(Base.Orientation, None)
        return super().load()


def _codestream(data: bytes) -> bytes:
    """The pixels' data, or its beginning where a container has it in parts."""
    at = 0
    while data.startswith(_CONTAINER) and at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        header = 8
        if length == 1:
            length, header = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if kind == b"jxlc":
            return data[at + header : at + header + 32]
        if kind == b"jxlp":
            return data[at + header + 4 : at + header + 36]
        if length < header:  # 0: to the end of the file
            break
        at += length
    return data[:32]


def _size(codestream: bytes) -> tuple[int, int]:
    """Width and height, as a JPEG XL codestream begins with them (ISO/IEC 18181-1, SizeHeader)."""
    if not codestream.startswith(_CODESTREAM):
        raise SyntaxError("no JPEG XL codestream")
    bits = int.from_bytes(codestream[2:20], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    small = take(1)

    def side() -> int:
        return 8 * (1 + take(5)) if small else 1 + take(_SIDE_BITS[take(2)])

    height = side()
    numerator, denominator = _RATIOS[take(3)]
    return (height * numerator // denominator if numerator else side()), height
