"""The image formats that are decoded here, recognized by content.

PIL's plug-ins are called directly, not through `Image.open`: that opens other formats as well, its pixel
limit is one global of the process (and below what phones shoot now), and HEIF would have to be registered
globally.
"""

from __future__ import annotations

import functools
import logging
import re
import struct
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
from vitmae_search.photos import jxl, raw
from vitmae_search.photos.png import needed_chunks
from vitmae_search.photos.tiff import read_planes_whole

MEDIA_TYPES: Mapping[str, str] = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
    "HEIF": "image/heif",
    "JXL": "image/jxl",
    "RAW": "application/octet-stream",
}
"""The formats allowed, as in `PhotoMetadata.format`, and their media types. An MPO is a JPEG."""

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff", ".bmp"}
    | {".avif", ".heic", ".heif", ".hif"}
)
"""Names that the walk takes for photos. The content then decides which decoder reads them."""

RAW_SUFFIXES = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".kdc", ".mef"}
    | {".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw"}
    | {".x3f"}
)
"""Sensor data. Many are TIFF files whose first image is a thumbnail, which must not pass for the photo."""
HEAD_BYTES = 512
"""What `holds_photo` needs of a file."""

Factory = Callable[[BytesIO, str], ImageFile.ImageFile]
# A file of the ISO container names the kinds that it is of, in any order, and the major one first.
_AVIF_BRANDS = frozenset((b"avif", b"avis", b"MA1B", b"MA1A"))
_HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"}
    | {b"MiHB", b"MiHE", b"MiHA", b"MiPr", b"MiCm", b"avci", b"avcs", b"jpeg", b"jpgs", b"j2ki", b"j2is"}
)
_ISPE = re.compile(rb"ispe\0\0\0\0(.{8})", re.S)
_HEADER_BYTES = 1 << 20
"""As far into a file as sizes are looked for."""
_BMP_HEADER_BYTES = (12, 40, 52, 56, 64, 108, 124)
# What a plug-in raises where the header is another format's.
_WRONG_FORMAT_ERRORS = (SyntaxError, IndexError, TypeError, KeyError)
# PIL logs an error for some bad TIFFs; without a handler Python would print it.
logging.getLogger("PIL").addHandler(logging.NullHandler())
_IGNORED_MODULES = r"PIL\.\w+ImagePlugin|PIL\.Image"
_FILTERS_LOCK = threading.Lock()


def readable_suffixes() -> tuple[str, ...]:
    """Return the suffixes of all formats that can be decoded with what is installed, RAW's last."""
    with_jxl = PHOTO_SUFFIXES | ({".jxl"} if jxl.can_be_decoded() else frozenset())
    return (*sorted(with_jxl), *(sorted(RAW_SUFFIXES) if raw.can_be_decoded() else ()))


def formats_of(data: bytes) -> tuple[str, ...]:
    """Return the formats, keys of `MEDIA_TYPES`, whose signature `data` has: two for some HEIF-like files.

    Raises:
        UnsupportedPhoto: It has no known signature.
    """
    ignore_pil_warnings()  # of a TIFF file the tags are read
    names = tuple(name for name in MEDIA_TYPES if _accepts(name, data))
    if "RAW" in names:  # many are TIFF files as well
        return ("RAW",)
    if not names:
        raise UnsupportedPhoto(None, f"not one of {', '.join(MEDIA_TYPES)}" if data else "the file is empty")
    return names


def holds_photo(head: bytes, suffix: str) -> bool:
    """Say whether a file that is not named as a photo begins as one that can be decoded.

    Args:
        head: Its first `HEAD_BYTES` bytes.
        suffix: Of its name, in lower case.
    """
    try:
        names = formats_of(head)
    except UnsupportedPhoto:
        return False
    if names == ("BMP",):  # two letters only, with which a text may begin, too
        return int.from_bytes(head[14:18], "little") in _BMP_HEADER_BYTES and not any(head[6:10])
    if names == ("JXL",):
        return jxl.can_be_decoded()
    if names == ("RAW",) or (names == ("TIFF",) and suffix in RAW_SUFFIXES):
        return raw.can_be_decoded()
    return True


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
            return _open(name, data), name
        except _WRONG_FORMAT_ERRORS:
            continue
    return _open(last, data), last


def declared_size(data: bytes, image_format: str) -> tuple[int, int] | None:
    """The width and height in the header of a format whose decoder takes memory for all pixels when opened.

    Args:
        data: The file's bytes.
        image_format: A key of `MEDIA_TYPES`.

    Returns:
        None for other formats, and where the header does not say it.
    """
    if image_format == "WEBP":
        return _webp_size(data)
    if image_format in ("AVIF", "HEIF"):
        # Each picture in the file has an "ispe" of its own, tiles and thumbnails too: the largest counts.
        sizes = [struct.unpack(">II", found[1]) for found in _ISPE.finditer(data, 0, _HEADER_BYTES)]
        return max(sizes, key=lambda size: size[0] * size[1], default=None)
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if kind == b"VP8X":
        width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
    elif kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (int.from_bytes(body[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    else:
        return None
    return width, height


@functools.cache
def decoder_versions() -> str:
    """The versions of the packages that decode: with another text, a file may decode that did not before."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and seldom needed

    versions = []
    for package in ("pillow", "pillow-heif", "pillow-jxl-plugin", "rawpy", "av"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"no {package}")
    return ", ".join(versions)


def _open(name: str, data: bytes) -> ImageFile.ImageFile:
    image = _factory(name)(BytesIO(needed_chunks(data) if name == "PNG" else data), "")
    if name == "TIFF":
        read_planes_whole(image)
    return image


def _accepts(name: str, data: bytes) -> bool:
    if name == "JXL":
        return jxl.is_jxl(data)
    if name == "RAW":
        return raw.is_raw(data)
    if name in ("AVIF", "HEIF"):
        brands = _brands(data)
        return not brands.isdisjoint(_HEIF_BRANDS | _AVIF_BRANDS if name == "HEIF" else _AVIF_BRANDS)
    accept = Image.OPEN[name][1]
    answer = accept(data[:16]) if accept is not None else True
    if isinstance(answer, str):  # the format is right, but this build of PIL lacks its codec
        raise UnsupportedPhoto(None, answer)
    return bool(answer)


def _brands(data: bytes) -> frozenset[bytes]:
    """The kinds that a file of the ISO container says it is of; empty for another file."""
    if data[4:8] != b"ftyp":
        return frozenset()
    end = min(int.from_bytes(data[:4], "big"), len(data), 4096)
    return frozenset(data[at : at + 4] for at in (8, *range(16, end - 3, 4)))


def _factory(name: str) -> Factory:
    if name == "JXL":
        return jxl.JxlImageFile
    if name == "RAW":
        return raw.RawImageFile
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
