"""Read EXIF: a photo's orientation, and when, with which camera and where it was taken.

Much EXIF is malformed, so nothing here raises: what cannot be read is None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from vitmae_search.records import PhotoMetadata

_DATE = re.compile(r"\s*(\d{4})[:\-/.](\d{1,2})[:\-/.](\d{1,2})[ T]+(\d{1,2}):(\d{1,2})(?::(\d{1,2}))?")
_CAMERA_LENGTH = 120


@dataclass(frozen=True, slots=True)
class ExifData:
    """EXIF tags by number: those of the main image, and of the Exif and GPS directories."""

    main: Mapping[int, object]
    exif: Mapping[int, object]
    gps: Mapping[int, object]


def read_exif(image: Image.Image) -> ExifData:
    """Read the EXIF of a decoded image of any format; empty where there is none, or where it is malformed."""
    try:
        tags = image.getexif()
        main = dict(tags)
    except Exception:  # PIL's parser raises nearly anything on malformed EXIF
        return ExifData({}, {}, {})
    return ExifData(main, _directory(tags, IFD.Exif), _directory(tags, IFD.GPSInfo))


def _directory(tags: Image.Exif, which: IFD) -> Mapping[int, object]:
    try:
        return dict(tags.get_ifd(which))
    except Exception:  # as above; the other directories may still be good
        return {}


def orientation(exif: ExifData) -> int:
    """Return the orientation as EXIF numbers it, 1 to 8; 1 (upright) where it is absent or invalid."""
    value = exif.main.get(Base.Orientation)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def photo_metadata(exif: ExifData, size: tuple[int, int], image_format: str) -> PhotoMetadata:
    """Collect the metadata of a photo.

    Args:
        exif: Its EXIF.
        size: (width, height) in pixels, upright and not scaled down.
        image_format: A key of `formats.MEDIA_TYPES`.
    """
    latitude, longitude = _gps_position(exif.gps)
    return PhotoMetadata(
        width=size[0],
        height=size[1],
        format=image_format,
        taken_at=_taken_at(exif),
        camera=_camera(exif.main),
        latitude=latitude,
        longitude=longitude,
    )


def _taken_at(exif: ExifData) -> datetime | None:
    """The time of exposure, else of digitizing, else of the camera's last change to the file."""
    candidates = (
        exif.exif.get(Base.DateTimeOriginal),
        exif.exif.get(Base.DateTimeDigitized),
        exif.main.get(Base.DateTimeOriginal),  # some programs write it into the wrong directory
        exif.main.get(Base.DateTime),
    )
    return next((date for date in map(_date, candidates) if date is not None), None)


def _date(value: object) -> datetime | None:
    match = _DATE.match(_text(value))
    if match is None:
        return None
    try:
        return datetime(*(int(part or 0) for part in match.groups()))  # type: ignore[arg-type]
    except ValueError:  # 0000:00:00, 31 February, hour 24
        return None


def _camera(main: Mapping[int, object]) -> str | None:
    make, model = _text(main.get(Base.Make)), _text(main.get(Base.Model))
    if make and model and model.lower().startswith(make.lower().split()[0]):
        make = ""  # the model names it: "Canon", "Canon EOS 5D"; "NIKON CORPORATION", "NIKON D90"
    return f"{make} {model}".strip()[:_CAMERA_LENGTH] or None


def _text(value: object) -> str:
    """`value` as one clean line, up to the first NUL; "" where it is no text."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    line = "".join(c if c.isprintable() else " " for c in value.partition("\0")[0])
    return " ".join(line.split())


def _gps_position(gps: Mapping[int, object]) -> tuple[float | None, float | None]:
    """Latitude and longitude in signed degrees: both, or neither."""
    latitude = _degrees(gps.get(GPS.GPSLatitude), gps.get(GPS.GPSLatitudeRef), "NS", 90.0)
    longitude = _degrees(gps.get(GPS.GPSLongitude), gps.get(GPS.GPSLongitudeRef), "EW", 180.0)
    if latitude is None or longitude is None:
        return None, None
    return latitude, longitude


def _degrees(value: object, reference: object, signs: str, limit: float) -> float | None:
    """Degrees from (degrees, minutes, seconds); `signs` are the letters for plus and minus."""
    letter = _text(reference)[:1].upper()
    if not isinstance(value, tuple) or not 1 <= len(value) <= 3 or letter not in tuple(signs):
        return None
    try:
        parts: list[float] = [float(part) for part in value]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    degrees = sum((part / float(60**power) for power, part in enumerate(parts)), 0.0)
    if not all(map(math.isfinite, parts)) or min(parts) < 0 or degrees > limit:
        return None
    return -degrees if letter == signs[1] else degrees
