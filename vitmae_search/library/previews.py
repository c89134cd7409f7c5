"""Pictures as a browser can show them."""

from __future__ import annotations

import io
import os

from PIL import Image

from vitmae_search.photos import MEDIA_TYPES, decode, read_photo
from vitmae_search.records import Photo

SHOWN_BY_BROWSERS = frozenset(
    {"image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/avif"}
)
PREVIEW_SIDE = 2560


def media_type(photo: Photo) -> str:
    """The media type of the photo's content, such as "image/jpeg"."""
    return MEDIA_TYPES.get(photo.metadata.format, "application/octet-stream")


def preview(picture: str | os.PathLike[str] | bytes, side: int = PREVIEW_SIDE) -> bytes:
    """A file, or a file's bytes, of any format decoded here as upright WebP.

    The longer side is `side` pixels at most. Raises `PhotoError`.
    """
    data = picture if isinstance(picture, bytes) else read_photo(picture)
    path = None if isinstance(picture, bytes) else os.fspath(picture)
    image = decode(data, path=path, shrink_to=side).image
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85, method=2, icc_profile=image.info.get("icc_profile"))
    return buffer.getvalue()
