"""The formats that are decoded here, recognised by content, and nothing else that PIL could open.

The plug-ins of PIL are called directly, not through `Image.open`: its pixel limit is one global for the
process (and below what phones shoot now), and opening HEIF through it means registering globally.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO

from PIL import (
    AvifImagePlugin,  # noqa: F401  importing a plug-in enters it in Image.OPEN, once, before any thread
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    ImageFile,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from vitmae_search.errors import UnsupportedPhoto

MEDIA_TYPES: Mapping[str, str] = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
    "HEIF": "image/heif",
}
"""The allow-list: `PhotoMetadata.format` and its media type. An MPO is a JPEG."""

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff", ".bmp"}
    | {".avif", ".heic", ".heif", ".hif"}
)
"""What the walk takes for a photo. The content then decides which decoder reads it."""

Factory = Callable[[BytesIO, str], ImageFile.ImageFile]
_HEIF_BRANDS = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
)
# What a plug-in raises where the header is another format's.
_NOT_MINE = (SyntaxError, IndexError, TypeError, KeyError)
# PIL logs an error for some bad TIFFs; without a handler Python would print it.
logging.getLogger("PIL").addHandler(logging.NullHandler())
_MUTED_MODULES = r"PIL\.\w+ImagePlugin|PIL\.Image"
_MUTING = threading.Lock()


def formats_of(data: bytes) -> tuple[str, ...]:
    """The formats, keys of `MEDIA_TYPES`, whose signature `data` bears; two for some HEIF-like files.

    Raises `UnsupportedPhoto` where there are none.
    """
    names = tuple(name for name in MEDIA_TYPES if _accepts(name, data[:16]))
    if not names:
        raise UnsupportedPhoto(None, f"not one of {', '.join(MEDIA_TYPES)}" if data else "the file is empty")
    return names


def open_image(data: bytes, formats: Sequence[str]) -> tuple[ImageFile.ImageFile, str]:
    """`data` with its header parsed and no pixel decoded, and which of `formats` it turned out to be.

    A bad header raises whatever the format's plug-in does: any exception at all, `decode` translates them.
    """
    mute_warnings()
    *others, last = formats
    for name in others:
        try:
            return _factory(name)(BytesIO(data), ""), name
        except _NOT_MINE:
            continue
    return _factory(last)(BytesIO(data), ""), last


def _accepts(name: str, prefix: bytes) -> bool:
    if name == "HEIF":
        return prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS
    accept = Image.OPEN[name][1]
    answer = accept(prefix) if accept is not None else True
    if isinstance(answer, str):  # the format is right, but this build of PIL lacks its codec
        raise UnsupportedPhoto(None, answer)
    return bool(answer)


def _factory(name: str) -> Factory:
    return _heif() if name == "HEIF" else Image.OPEN[name][0]


def _heif() -> Factory:
    """Its plug-in is a package of its own, which a machine that only trains may lack."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise UnsupportedPhoto(None, "HEIF needs the package pillow-heif") from error
    factory: Factory = HeifImageFile
    return factory


def mute_warnings() -> None:
    """Keep PIL's warnings about single files (odd tags, a malformed MPO) from printing or raising.

    `warnings.catch_warnings` is no help in worker threads: it swaps the process's filters, and two that
    overlap restore them wrongly. So two narrow filters are put in front, where they are not there already
    (a test runner, or a host with `-W error`, may have put others before them), and they stay.
    """
    if _muted():
        return
    with _MUTING:
        if not _muted():
            for category in (UserWarning, RuntimeWarning):
                warnings.filterwarnings("ignore", category=category, module=_MUTED_MODULES)


def _muted() -> bool:
    front = warnings.filters[:2]
    return len(front) == 2 and all(
        entry[0] == "ignore" and isinstance(entry[3], re.Pattern) and entry[3].pattern == _MUTED_MODULES
        for entry in front
    )
