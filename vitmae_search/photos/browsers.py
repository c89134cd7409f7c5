"""Whether a browser shows a photo's file as it is decoded here: turned the same way, and the same picture.

Browsers turn by EXIF in a JPEG, by EXIF in front of a PNG's pixels and by an AVIF's own orientation; neither
by XMP nor by anything in a WebP. Seen in Chromium 150.
"""

from __future__ import annotations

import struct
from io import BytesIO

from PIL import Image

from vitmae_search.photos import jpeg, png
from vitmae_search.photos.formats import formats_of, open_image
from vitmae_search.photos.metadata import ExifData, orientation

_APP1 = 0xE1
_ORIENTATION_TAG = 0x0112
_SHORT = 3
# BMP is not among them: browsers differ from decoders in its transparency and colors.
_SHOWN = frozenset(("JPEG", "PNG", "WEBP", "GIF", "AVIF"))


def browsers_show_alike(data: bytes) -> bool:
    """Say whether browsers show a file's bytes as `decode` does. No pixel is decoded.

    Where it is not certain, the answer is no.
    """
    try:
        formats = formats_of(data)
        if formats[0] not in _SHOWN:
            return False
        if formats[0] == "PNG" and (png.has_late_tags(data) or png.has_own_still(data)):
            return False
        image, image_format = open_image(data, formats)
        # PIL's own method for PNG would decode the pixels first.
        turned = orientation(ExifData(dict(Image.Image.getexif(image)), {}, {}))
    except Exception:  # as in `decode`, which says what is wrong with the file
        return False
    if image_format == "JPEG":
        return turned == _orientation_of_jpeg(data)
    return turned == 1 and image_format in _SHOWN


def encode_webp(image: Image.Image) -> bytes:
    """Encode an RGB image as browsers show it, with its color profile, as WebP."""
    buffer = BytesIO()
    image.save(buffer, "WEBP", quality=85, method=2, icc_profile=image.info.get("icc_profile"))
    return buffer.getvalue()


def _orientation_of_jpeg(data: bytes) -> int:
    """The orientation that browsers read: the first EXIF's, if it is one SHORT. PIL takes others, and XMP."""
    for marker, body in jpeg.segments(data):
        if marker == _APP1 and body[:5] == b"Exif\0":
            return _orientation_of_tiff(body[6:])
        if marker == jpeg.START_OF_SCAN:
            break
    return 1


def _orientation_of_tiff(data: bytes) -> int:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, number, value = struct.unpack_from(order + "HHIH", data, at)
            if tag == _ORIENTATION_TAG:
                return value if kind == _SHORT and number == 1 and 1 <= value <= 8 else 1
    except struct.error:  # it breaks off
        pass
    return 1
