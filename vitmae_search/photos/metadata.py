"""Read a photo's orientation, and when, with which camera and lens, and where it was taken.

From EXIF, dates also from XMP, IPTC and GPS, and lenses from XMP. Much of that is malformed, so nothing here
raises: what cannot be read is None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import PurePath

from PIL import Image, ImageFile, IptcImagePlugin
from PIL.ExifTags import GPS, IFD, Base

from vitmae_search.records import PhotoMetadata

# A date, and what may follow: hours, minutes and seconds.
_DATE = re.compile(
    r"\s*(\d{4})[:\-/.](\d{1,2})[:\-/.](\d{1,2})(?!\d)(?:[ T]+(\d{1,2}):(\d{1,2})(?::(\d{1,2}))?)?"
)
_MIN_YEAR = 1800
"""Of a date that is believed: before photography was invented there are only clocks that were never set."""
# 2015-06-07, 20150607, 2015_06_07; then perhaps a time.
_DATE_IN_NAME = re.compile(
    r"(?<!\d)((?:19|20)\d\d)([-_. ]?)(\d\d)\2(\d\d)"
    r"(?:(?:[-_.T ]| at )*(\d\d)([-_.: h]?)(\d\d)\6(\d\d)(?:\d{3})?(?!\d)|(?!\d))"
)
_XMP_DATES = ("exif:DateTimeOriginal", "photoshop:DateCreated", "xmp:CreateDate", "exif:DateTimeDigitized")
_XMP_DATE = re.compile(
    rf"""\b({"|".join(_XMP_DATES)})(?:\s*=\s*["']|\s*>)\s*(\d{{4}}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d)?)?)"""
)
_XMP_LENS = re.compile(r"""\b(?:aux:Lens|exifEX:LensModel)(?:\s*=\s*["']|\s*>)([^"'<>]{1,200})""")
_MAX_XMP = 1 << 20
_IPTC_DATES = (((2, 55), (2, 60)), ((2, 62), (2, 63)))  # created, digitized: date and time
_CAMERA_LENGTH = 120


@dataclass(frozen=True, slots=True)
class ExifData:
    """EXIF tags by number: those of the main image, and of the Exif and GPS directories."""

    main: Mapping[int, object]
    exif: Mapping[int, object]
    gps: Mapping[int, object]


@dataclass(frozen=True, slots=True)
class OtherTags:
    """What else than EXIF may say when a photo was taken.

    Attributes:
        xmp: The text of its XMP.
        iptc: Its IPTC values by record and data set.
    """

    xmp: str = ""
    iptc: Mapping[tuple[int, int], object] = field(default_factory=dict)


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


def read_other_tags(image: ImageFile.ImageFile) -> OtherTags:
    """Read the XMP and IPTC of a decoded image; empty where there is none, or where it is malformed."""
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or ""
    if isinstance(xmp, bytes):
        xmp = xmp[:_MAX_XMP].decode("utf-16" if xmp[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace")
    try:
        iptc = IptcImagePlugin.getiptcinfo(image) or {}
    except Exception:  # PIL's parser raises nearly anything on malformed data
        iptc = {}
    return OtherTags(xmp[:_MAX_XMP] if isinstance(xmp, str) else "", iptc)


def photo_metadata(
    exif: ExifData,
    size: tuple[int, int],
    image_format: str,
    other: OtherTags | None = None,
    notes: Sequence[str] = (),
) -> PhotoMetadata:
    """Collect the metadata of a photo.

    Args:
        exif: Its EXIF.
        size: (width, height) in pixels, upright and not scaled down.
        image_format: A key of `formats.MEDIA_TYPES`.
        other: Its XMP and IPTC.
        notes: Phrases about what could not be read of it.
    """
    taken_at, taken_from = _taken(exif, other or OtherTags())
    latitude, longitude = _gps_position(exif.gps)
    if latitude is None and _lacks_reference(exif.gps):
        notes = [*notes, "its place does not say north or south, east or west, so it is not used"]
    return PhotoMetadata(
        width=size[0],
        height=size[1],
        format=image_format,
        taken_at=taken_at,
        taken_from=taken_from,
        camera=_camera(exif.main),
        lens=_lens(exif.exif, other or OtherTags()),
        latitude=latitude,
        longitude=longitude,
        notes=tuple(notes),
    )


def date_in_name(path: str) -> datetime | None:
    """Return the date, and the time if there is one, that a photo's file name begins with or contains.

    As cameras, phones and messengers write them: `IMG-20150607-WA0001.jpg`, `2015-06-07 08.09.10.jpg`.
    """
    for match in _DATE_IN_NAME.finditer(PurePath(path).name):
        year, _, month, day, hour, _, minute, second = match.groups()
        date = _moment(year, month, day, hour, minute, second)
        if date is not None and date < datetime.now() + timedelta(days=1):  # else it is some other number
            return date
    return None


def _taken(exif: ExifData, other: OtherTags) -> tuple[datetime, str] | tuple[None, None]:
    """When a photo was taken, and what says so: the first of those that can be read.

    The time of the camera's last change to the file comes at the end: programs write it, too.
    """
    candidates = (
        (_date(exif.exif.get(Base.DateTimeOriginal)), "EXIF"),
        (_date(exif.exif.get(Base.DateTimeDigitized)), "EXIF"),
        (_date(exif.main.get(Base.DateTimeOriginal)), "EXIF"),  # the wrong directory, but some write it there
        (_xmp_date(other.xmp), "XMP"),
        (_iptc_date(other.iptc), "IPTC"),
        (_gps_date(exif.gps), "GPS"),
        (_date(exif.main.get(Base.DateTime)), "EXIF"),
    )
    return next(((date, source) for date, source in candidates if date is not None), (None, None))


def _date(value: object) -> datetime | None:
    match = _DATE.match(_text(value))
    return None if match is None else _moment(*match.groups())


def _moment(
    year: str, month: str, day: str, hour: str | None, minute: str | None, second: str | None
) -> datetime | None:
    """The date with as much of its time as is possible: second 60 costs the second, hour 24 the time."""
    try:
        date = datetime(int(year), int(month), int(day))
    except ValueError:  # 0000:00:00, 31 February
        return None
    if date.year < _MIN_YEAR:
        return None
    for part, value, limit in ((3600, hour, 24), (60, minute, 60), (1, second, 60)):
        if int(value or 0) >= limit:
            break
        date += timedelta(seconds=part * int(value or 0))
    return date


def _xmp_date(xmp: str) -> datetime | None:
    found = {name: date for name, written in _XMP_DATE.findall(xmp) if (date := _date(written)) is not None}
    return next((found[name] for name in _XMP_DATES if name in found), None)


def _iptc_date(iptc: Mapping[tuple[int, int], object]) -> datetime | None:
    for date_set, time_set in _IPTC_DATES:
        date, time = _text(iptc.get(date_set)), _text(iptc.get(time_set))
        if len(date) == 8 and date.isdecimal():
            parts = [time[i : i + 2] if time[i : i + 2].isdecimal() else None for i in (0, 2, 4)]
            moment = _moment(date[:4], date[4:6], date[6:], *parts)
            if moment is not None:
                return moment
    return None


def _gps_date(gps: Mapping[int, object]) -> datetime | None:
    """The time of the satellites, which is UTC."""
    date = _date(gps.get(GPS.GPSDateStamp))
    time = gps.get(GPS.GPSTimeStamp)
    if date is None or not isinstance(time, tuple) or len(time) != 3:
        return date
    try:
        hour, minute, second = (str(int(part)) for part in time)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return date
    return _moment(str(date.year), str(date.month), str(date.day), hour, minute, second)


def _camera(main: Mapping[int, object]) -> str | None:
    make, model = _text(main.get(Base.Make)), _text(main.get(Base.Model))
    if make and model and model.lower().startswith(make.lower().split()[0]):
        make = ""  # the model names it: "Canon", "Canon EOS 5D"; "NIKON CORPORATION", "NIKON D90"
    return f"{make} {model}".strip()[:_CAMERA_LENGTH] or None


def _lens(exif: Mapping[int, object], other: OtherTags) -> str | None:
    """The lens's model as EXIF or XMP names it, else what it can do: "18-55mm f/3.5-5.6"."""
    names = [_text(exif.get(Base.LensModel)), *(_text(name) for name in _XMP_LENS.findall(other.xmp))]
    # A camera without a lens that it knows writes dashes.
    named = next((name for name in names if any(map(str.isalnum, name))), "")
    return (named or _lens_range(exif.get(Base.LensSpecification)))[:_CAMERA_LENGTH] or None


def _lens_range(value: object) -> str:
    """Focal lengths and apertures from (shortest, longest, widest at one, widest at the other)."""
    if not isinstance(value, tuple) or len(value) != 4:
        return ""
    numbers = []
    for part in value:
        try:
            number = float(part)
        except (TypeError, ValueError, ZeroDivisionError, OverflowError):
            number = 0.0
        numbers.append(f"{number:g}" if math.isfinite(number) and 0 < number < 10_000 else "")
    (shortest, longest, first, second) = numbers
    if not shortest:
        return ""
    focal = f"{shortest}-{longest}mm" if longest not in ("", shortest) else f"{shortest}mm"
    aperture = f"{first}-{second}" if second not in ("", first) else first
    return f"{focal} f/{aperture}" if first else focal


def _text(value: object) -> str:
    """`value` as one clean line, up to the first NUL; "" where it is no text.

    EXIF's texts are ASCII by its standard and UTF-8 in practice. PIL reads them as Latin-1.
    """
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str):
        return ""
    text = value.partition("\0")[0]
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    line = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(line.split())


def _lacks_reference(gps: Mapping[int, object]) -> bool:
    """Say whether there is a place but for the letters that say on which side of equator and meridian."""
    values = gps.get(GPS.GPSLatitude), gps.get(GPS.GPSLongitude)
    references = gps.get(GPS.GPSLatitudeRef), gps.get(GPS.GPSLongitudeRef)
    return None not in values and not all(map(_text, references))


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
