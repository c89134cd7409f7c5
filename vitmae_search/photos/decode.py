"""Decode a file's bytes to an upright RGB image and its metadata."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageFile

from vitmae_search.errors import DamagedPhoto, MemoryShort, PhotoError, PhotoTooLarge, UnsupportedPhoto
from vitmae_search.photos import jpeg
from vitmae_search.photos.color import is_wide_rgb, to_rgb
from vitmae_search.photos.formats import declared_size, formats_of, open_image
from vitmae_search.photos.memory_budget import (
    BROKEN_JPEG_BYTES,
    BYTES_PER_PIXEL,
    UNCOUNTED_BYTES,
    jpeg_bytes_per_pixel,
)
from vitmae_search.photos.metadata import orientation, photo_metadata, read_exif, read_other_tags
from vitmae_search.records import PhotoMetadata

DECODE_MODES = ("scaled", "exact")
DECODE_REVISION = 3
"""Increased whenever a photo would decode to other pixels; part of a space's fingerprint."""
MAX_PIXELS = 250_000_000
"""More than the 200 megapixels of today's phones; less than a gigabyte in PIL's four bytes a pixel."""
_MIN_SHRINK_TO = 320

Reserve = Callable[[int], int | None]
"""Asks for so many bytes of memory, in place of those before, and waits for them. Returns None or, where they
can never be had, how many there are at most."""

_TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAP_SIDES = frozenset(_TRANSPOSE_BY_ORIENTATION[value] for value in (5, 6, 7, 8))
_TRUNCATED = re.compile(r"truncated|cut short|unexpected end|end of file|not enough (image )?data", re.I)
_SHORT_HEADER = re.compile(r"\bunpack\w* requires a buffer")
_UNSUPPORTED = re.compile(r"unsupported|not supported|not available|unknown (pixel mode|data|raw mode)", re.I)
_REASON_LENGTH = 120


@dataclass(frozen=True, slots=True, eq=False)
class DecodedPhoto:
    """A decoded photo.

    Attributes:
        image: RGB and upright, perhaps scaled down. `image.info` has the `icc_profile` of a photo in another
            RGB than sRGB, and is empty otherwise.
        metadata: Has the file's own size, upright.
    """

    image: Image.Image
    metadata: PhotoMetadata


def decode_target(decode_mode: str, input_size: int | None) -> int | None:
    """Return the `shrink_to` of `decode`; one for indexing and searching, so that a query equals its photo.

    Args:
        decode_mode: One of `DECODE_MODES`.
        input_size: Side of the embedder's input in pixels, None where it names none.

    Returns:
        None for "exact", or without an `input_size`. For "scaled" twice the input's side, so that the
        embedder's own resampling decides on the detail, and at least enough for a thumbnail.
    """
    if decode_mode not in DECODE_MODES:
        raise ValueError(f"decode_mode={decode_mode!r}: one of {', '.join(DECODE_MODES)}")
    if decode_mode == "exact" or input_size is None:
        return None
    return max(2 * input_size, _MIN_SHRINK_TO)


def decode(
    data: bytes,
    *,
    path: str | os.PathLike[str] | None = None,
    shrink_to: int | None = None,
    max_pixels: int = MAX_PIXELS,
    reserve: Reserve = lambda count: None,
) -> DecodedPhoto:
    """Decode the bytes of a photo. Safe to call from many threads.

    The content, not the name, decides the format. Of an animation the first frame is decoded. The values are
    as they are stored, as in other pipelines on PIL: no color profile is applied. `color.to_rgb` says what
    becomes of color modes and transparency. EXIF, XMP and other extras that cannot be read count as absent.
    A JPEG that breaks off is decoded if at most a tenth of its rows lacks anything; `metadata.notes` says so.

    Args:
        data: The file's bytes.
        path: For error messages.
        shrink_to: None decodes exactly, at full size. Otherwise a JPEG is decoded at 1/2, 1/4 or 1/8 size
            while its shorter side stays at least so many pixels, which skips most of the work; so is the one
            in a RAW file. Other formats come at full size.
        max_pixels: Most pixels (width × height). For WebP, GIF and TIFF PIL's limit of 179 megapixels holds
            as well.
        reserve: Asked before a photo is decoded that takes much memory.

    Raises:
        UnsupportedPhoto: The format, or this kind of it, is not decoded here.
        DamagedPhoto: The file is damaged or truncated, whatever `ImageFile.LOAD_TRUNCATED_IMAGES` is.
        PhotoTooLarge: It has too many pixels, which is checked before decoding; or takes more memory than
            there can be.
    """
    image_format, memory = "image", _Memory(reserve)
    try:
        formats = formats_of(data)
        image_format = formats[0]
        declared = declared_size(data, image_format)
        if declared is not None:  # the decoder takes its memory when it is opened
            _check_size(declared, max_pixels)
            memory.reserve(declared, image_format, BYTES_PER_PIXEL[image_format])
        image, image_format = open_image(data, formats)
        if image_format == "JPEG":
            jpeg.check_scans(data)
        try:
            return _decode(image, image_format, shrink_to, max_pixels, memory)
        except OSError as error:
            if image_format != "JPEG" or not _TRUNCATED.search(str(error)):
                raise
            size = image.size
            del image  # several copies of a large photo would not fit into memory
            memory.reserve(size, image_format, BROKEN_JPEG_BYTES)
            completed, note = jpeg.complete(data)
            image, _ = open_image(completed, ("JPEG",))
            return _decode(image, image_format, shrink_to, max_pixels, memory, [note] if note else [])
    except PhotoError as error:
        raise type(error)(path, error.reason) from error.__cause__
    except Exception as error:  # PIL's parsers raise nearly anything on malformed input
        raise _photo_error(error, path, image_format) from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an image that is open in PIL as `decode` does exactly: a new one, upright and RGB."""
    image.load()
    transpose = _TRANSPOSE_BY_ORIENTATION.get(orientation(read_exif(image)))
    rgb = to_rgb(image)
    rgb = rgb if transpose is None else rgb.transpose(transpose)
    rgb.info = {}
    return rgb


def _decode(
    image: ImageFile.ImageFile,
    image_format: str,
    shrink_to: int | None,
    max_pixels: int,
    memory: _Memory,
    notes: Sequence[str] = (),
) -> DecodedPhoto:
    full_size = getattr(image, "photo_size", image.size)
    _check_size(full_size, max_pixels)
    may_shrink = image_format in ("JPEG", "RAW")
    extent = _draft(image, shrink_to) if may_shrink and shrink_to is not None else None
    memory.reserve(full_size, image_format, _bytes_per_pixel(image, image_format, full_size))
    image.load()
    if extent is None and image_format != "RAW":
        full_size = image.size  # known only now for some: a TIFF is turned by PIL, a HEIF may differ
        _check_size(full_size, max_pixels)
    if image_format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        image.putalpha(255)  # the fourth byte was left empty, and does not mean transparency
    exif = read_exif(image)
    transpose = _TRANSPOSE_BY_ORIENTATION.get(orientation(exif))
    profile = image.info.get("icc_profile")
    keep_profile = image.mode in ("RGB", "RGBA", "P") and is_wide_rgb(profile)
    is_plain_rgb = image.mode == "RGB" and not image.has_transparency_data
    rgb = image if is_plain_rgb else to_rgb(image)
    if extent is not None and extent != rgb.size:
        rgb = _remove_padding(rgb, extent)
    if transpose is not None:
        rgb = rgb.transpose(transpose)
        if transpose in _SWAP_SIDES:
            full_size = full_size[::-1]
    metadata = photo_metadata(exif, full_size, image_format, read_other_tags(image), notes)
    rgb.info = {"icc_profile": profile} if keep_profile else {}  # `rgb` may be `image` itself
    return DecodedPhoto(rgb, metadata)


def _bytes_per_pixel(image: ImageFile.ImageFile, image_format: str, full_size: tuple[int, int]) -> float:
    """What decoding an image takes for each pixel of its file, once it was told how small."""
    if image_format != "JPEG":
        return BYTES_PER_PIXEL[image_format]
    shrunk = round(full_size[0] / max(1, image.width))
    progressive = bool(image.info.get("progressive"))
    return jpeg_bytes_per_pixel(len(image.getbands()), shrunk, progressive=progressive)


class _Memory:
    """The memory that decoding one photo takes."""

    def __init__(self, reserve: Reserve) -> None:
        self._ask, self._held = reserve, UNCOUNTED_BYTES

    def reserve(self, size: tuple[int, int], image_format: str, bytes_per_pixel: float) -> None:
        """Wait until there is enough. Raises `MemoryShort` where there never can be."""
        width, height = size
        needed = int(width * height * bytes_per_pixel)
        if needed <= self._held:
            return
        limit = self._ask(needed)
        if limit is not None:
            raise MemoryShort(
                None,
                f"{width} × {height} pixels: decoding them from {image_format} takes about "
                f"{needed / 1e9:.1f} GB of memory, more than the {limit / 1e9:.1f} GB that photos may take "
                "here; save it smaller, or index it on a machine with more",
            )
        self._held = needed


def _draft(image: ImageFile.ImageFile, shrink_to: int) -> tuple[float, float] | None:
    """Ask the JPEG decoder for a smaller image. With both sides as target, the shorter one decides.

    Returns the photo's width and height in pixels of the smaller image, with fractions; None at full size.
    """
    full_size = image.size
    drafted = image.draft(image.mode, (shrink_to, shrink_to))
    if drafted is None or image.size == full_size:
        return None
    _, (_, _, width, height) = drafted
    return width, height


def _remove_padding(rgb: Image.Image, extent: tuple[float, float]) -> Image.Image:
    """Return the photo alone, where it does not fill the last column or row of the decoded image.

    The decoder gives whole pixels: 2322 rows at 1/4 size are 580.5 rows, and come as 581. The last one is
    half padding, which some cameras write in black. Such a dark line would change the photo's vector, and so
    would the stretching if the row counted in full. So the row is replaced by its neighbor, and the image
    resized to whole pixels.
    """
    (width, height), (whole_width, whole_height) = rgb.size, map(int, extent)
    if whole_width < width:
        rgb.paste(rgb.crop((width - 2, 0, width - 1, height)), (width - 1, 0))
    if whole_height < height:
        rgb.paste(rgb.crop((0, height - 2, width, height - 1)), (0, height - 1))
    return rgb.resize((whole_width, whole_height), Image.Resampling.BICUBIC, box=(0, 0, *extent))


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise DamagedPhoto(None, "it has no pixels")
    if width * height > max_pixels:
        raise PhotoTooLarge(
            None,
            f"{width} × {height} pixels, {width * height / 1e6:,.1f} megapixels, "
            f"more than the limit of {max_pixels / 1e6:,.1f}",
        )


def _photo_error(error: Exception, path: str | os.PathLike[str] | None, image_format: str) -> PhotoError:
    """Return the `PhotoError` that says what PIL's `error` means."""
    if isinstance(error, Image.DecompressionBombError):
        return PhotoTooLarge(path, "more pixels than the decoder's limit")
    if isinstance(error, MemoryError):
        return MemoryShort(path, "too large for this machine's memory")
    text = " ".join(str(error).split()) or type(error).__name__
    detail = text if len(text) <= _REASON_LENGTH else text[: _REASON_LENGTH - 1] + "…"
    if _SHORT_HEADER.search(text):  # the text says nothing more that helps a person
        return DamagedPhoto(path, f"truncated {image_format} file")
    if isinstance(error, EOFError) or _TRUNCATED.search(text):
        return DamagedPhoto(path, f"truncated {image_format} file ({detail})")
    if _UNSUPPORTED.search(text):
        return UnsupportedPhoto(path, f"a kind of {image_format} that is not decoded here ({detail})")
    return DamagedPhoto(path, f"damaged {image_format} file ({detail})")
