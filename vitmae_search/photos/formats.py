"""The image formats that are decoded here, recognized by content.

PIL's plug-ins are called directly, not through `Image.open`: that opens other formats as well, its pixel
limit is one global of the process (and below what phones shoot now), and HEIF would have to be registered
globally.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO

from PIL import (
    AvifImagePlugin,  # noqa: F401  importing a plug-in registers it in Image.OPEN, before any thread starts
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
"""The formats allowed, as in `PhotoMetadata.format`, and their media types. An MPO is a JPEG."""

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff", ".bmp"}
    | {".avif", ".heic", ".heif", ".hif"}
)
"""Names that the walk takes for photos. The content then decides which decoder reads them."""

Factory = Callable[[BytesIO, str], ImageFile.ImageFile]
_HEIF_BRANDS = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
)
# What a plug-in raises where the header is another format's.
_WRONG_FORMAT_ERRORS = (SyntaxError, IndexError, TypeError, KeyError)
# PIL logs an error for some bad TIFFs; without a handler Python would print it.
logging.getLogger("PIL").addHandler(logging.NullHandler())
_IGNORED_MODULES = r"PIL\.\w+ImagePlugin|PIL\.Image"
_FILTERS_LOCK = threading.Lock()


def formats_of(data: bytes) -> tuple[str, ...]:
    """Return the formats, keys of `MEDIA_TYPES`, whose signature `data` has: two for some HEIF-like files.

    Raises:
        UnsupportedPhoto: It has no known signature.
    """
    names = tuple(name for name in MEDIA_TYPES if _accepts(name, data[:16]))
    if not names:
        raise UnsupportedPhoto(None, f"not one of {', '.join(MEDIA_TYPES)}" if data else "the file is empty")
    return names


def open_image(data: bytes, formats: Sequence[str]) -> tuple[ImageFile.ImageFile, str]:
    """Parse a file's header; no pixel is decoded.

    Args:
        data: The file's bytes.
        formats: The formats to try, in order.

    Returns:
        The image, and the format that fits.

    Raises:
        Exception: A bad header; PIL's plug-ins raise nearly anything, which `decode` translates.
    """
    ignore_pil_warnings()
    *others, last = formats
    for name in others:
        try:
            return _factory(name)(BytesIO(data), ""), name
        except _WRONG_FORMAT_ERRORS:
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
    """The HEIF plug-in, a package of its own that a machine for training may lack."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise UnsupportedPhoto(None, "HEIF needs the package pillow-heif") from error
    factory: Factory = HeifImageFile
    return factory


def ignore_pil_warnings() -> None:
    """Ignore PIL's warnings about single files, such as odd tags or a malformed MPO.

    `warnings.catch_warnings` is not safe in worker threads: it replaces the process's filters, and two that
    overlap restore the wrong ones. So two narrow filters are put in front and stay there. They are put in
    front again where others, such as a test runner's, have come before them.
    """
    if _filters_in_front():
        return
    with _FILTERS_LOCK:
        if not _filters_in_front():
            for category in (UserWarning, RuntimeWarning):
                warnings.filterwarnings("ignore", category=category, module=_IGNORED_MODULES)


def _filters_in_front() -> bool:
    front = warnings.filters[:2]
    return len(front) == 2 and all(
        entry[0] == "ignore" and isinstance(entry[3], re.Pattern) and entry[3].pattern == _IGNORED_MODULES
        for entry in front
    )
