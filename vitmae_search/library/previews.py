"""Pictures as a browser can show them: photos of any format, and panels of reconstructions."""

from __future__ import annotations

import mimetypes
import os

from PIL import Image

from vitmae_search.photos import MEDIA_TYPES, PHOTO_PROCESSES, readable_suffixes
from vitmae_search.photos.browsers import encode_webp
from vitmae_search.photos.error_map import HEAT_COLORS, error_map, largest_error
from vitmae_search.photos.raw import can_be_decoded as can_decode_raw
from vitmae_search.photos.reconstruction_sheet import (
    Panel,
    completed_photo,
    encode_png,
    enlarge,
    reconstruction_sheet,
)
from vitmae_search.photos.seams import soften_seams
from vitmae_search.photos.stored_file import open_file
from vitmae_search.photos.video import can_be_decoded as can_decode_videos
from vitmae_search.records import Photo, Reconstruction

__all__ = [
    "COMPLETED_HEIGHT",
    "HEAT_COLORS",
    "PANELS",
    "PREVIEW_SIDE",
    "UPLOAD_SUFFIXES",
    "can_decode_raw",
    "can_decode_videos",
    "completed_pixels",
    "error_map",
    "is_shown_by_browsers",
    "largest_error",
    "media_type",
    "open_file",
    "panel_png",
    "preview",
    "read_stored",
    "reconstruction_png",
    "sheet_png",
    "small_picture",
]

PREVIEW_SIDE = 2560
_NARROW = 96
UPLOAD_SUFFIXES = [suffix.removeprefix(".") for suffix in readable_suffixes()]
"""Those of the files that a person can search with, without their dot, as the app asks for them."""


def media_type(photo: Photo) -> str:
    """The media type of the photo's file, such as "image/jpeg"."""
    if photo.frame is not None:
        return mimetypes.guess_type(photo.file)[0] or "application/octet-stream"
    return MEDIA_TYPES.get(photo.metadata.format, "application/octet-stream")


def read_stored(photo: Photo) -> bytes:
    """The bytes of a photo's file, wherever it lies.

    Raises:
        PhotoError: It cannot be read.
    """
    return PHOTO_PROCESSES.read(photo.path)


def is_shown_by_browsers(photo: Photo, data: bytes | None = None) -> bool:
    """Say whether browsers show the photo's file as it is decoded here, so that it need not be converted.

    Args:
        photo: The photo.
        data: Its file's bytes, where they were read already.

    Raises:
        PhotoError: It cannot be read.
    """
    return photo.frame is None and PHOTO_PROCESSES.is_shown_by_browsers(photo.path if data is None else data)


def preview(picture: str | os.PathLike[str] | bytes, side: int = PREVIEW_SIDE) -> bytes:
    """A picture of any format that is decoded here, as upright WebP.

    Args:
        picture: A file's path, or a file's bytes.
        side: Pixels of the longer side at most.

    Raises:
        PhotoError: It cannot be read or decoded.
    """
    return PHOTO_PROCESSES.preview(picture if isinstance(picture, bytes) else os.fspath(picture), side)


def panel_png(panel: Panel) -> bytes:
    """A reconstruction's panel, (H, W, 3) uint8, enlarged by a whole factor, as the bytes of a PNG file."""
    return encode_png(enlarge(panel))


def small_picture(panel: Panel) -> tuple[str, bytes]:
    """A picture as it is, for a page that has many: its media type, and the bytes of its file.

    A narrow one, whose pixels a page enlarges, keeps each of them.

    Args:
        panel: (H, W, 3) uint8.
    """
    if panel.shape[1] <= _NARROW:
        return "image/png", encode_png(panel)
    return "image/webp", encode_webp(Image.fromarray(panel))


PANELS = ("completed", "seen", "original", "guessed", "errors", "sheet")
"""What `reconstruction_png` draws; the last is all of them in one."""
COMPLETED_HEIGHT = 1024


def reconstruction_png(made: Reconstruction, panel: str, *, soften: bool) -> bytes:
    """A panel of a reconstruction as the bytes of a PNG file.

    Args:
        made: The reconstruction.
        panel: One of `PANELS`.
        soften: Smooth the steps between neighbouring guesses in the completed photo.
    """
    if panel == "sheet":
        return sheet_png(made, soften=soften)
    if panel == "completed":
        return encode_png(completed_photo(made, height=COMPLETED_HEIGHT, soften=soften))
    if panel == "errors":
        return panel_png(error_map(made))
    return panel_png({"seen": made.masked, "original": made.original, "guessed": made.reconstruction}[panel])


def completed_pixels(made: Reconstruction, *, soften: bool) -> Panel:
    """The photo with the guessed patches in place, (H, W, 3) uint8 at the model's size.

    Args:
        made: The reconstruction.
        soften: Smooth the steps between neighbouring guesses.
    """
    return soften_seams(made) if soften else made.pasted


def sheet_png(made: Reconstruction, *, soften: bool) -> bytes:
    """The reconstruction as one picture (`reconstruction_sheet`), as the bytes of a PNG file.

    Args:
        made: The reconstruction.
        soften: Smooth the steps between neighbouring guesses in the completed photo.
    """
    return encode_png(reconstruction_sheet(made, soften=soften))
