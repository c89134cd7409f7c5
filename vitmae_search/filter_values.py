"""Places, sizes and relative dates as people type them, in options, addresses and the HTTP API."""

from __future__ import annotations

import math
import re
from datetime import date, timedelta

from vitmae_search.errors import LibraryError
from vitmae_search.records import GeoBox, GeoCircle

LONGEST_DISTANCE_KM = 20_100.0
"""To the other side of the earth, and a little more."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,5}(?:\.[0-9]{1,15})?")
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*(bytes|b|kb|mb|gb)?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "bytes": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_DAYS_AGO = re.compile(r"(?:last\s+)?([0-9]{1,5})\s*(d|days?|w|weeks?|y|years?)(?:\s+ago)?", re.IGNORECASE)
_DAYS = {"d": 1, "w": 7, "y": 365}
EARLIEST = date(1826, 1, 1)
"""The year of the first photograph."""


def read_box(text: str) -> GeoBox:
    """A box from "SOUTH,WEST,NORTH,EAST" in degrees. Raises `LibraryError` with what is wrong."""
    numbers = _numbers(text)
    if len(numbers) != 4:
        raise LibraryError(f"{text!r} is not SOUTH,WEST,NORTH,EAST in degrees, such as 47,5,55,15")
    south, west, north, east = numbers
    _check(south, west)
    _check(north, east)
    return GeoBox(min(south, north), west, max(south, north), east)


def read_point(text: str) -> tuple[float, float]:
    """Latitude and longitude from "LAT,LON" in degrees. Raises `LibraryError` with what is wrong."""
    numbers = _numbers(text)
    if len(numbers) != 2:
        raise LibraryError(f"{text!r} is not LATITUDE,LONGITUDE in degrees, such as 48.2,16.4")
    _check(*numbers)
    return numbers[0], numbers[1]


def read_circle(text: str) -> GeoCircle:
    """A circle from "LAT,LON,KM". Raises `LibraryError` with what is wrong."""
    point, _, km = text.rpartition(",")
    distance = _numbers(km)
    if len(distance) != 1 or not 0 < distance[0] <= LONGEST_DISTANCE_KM:
        raise LibraryError(f"the distance in {text!r} is not a number of kilometres above 0")
    return GeoCircle(*read_point(point), distance[0])


def box_text(box: GeoBox) -> str:
    """What `read_box` reads."""
    return _text(box.south, box.west, box.north, box.east)


def circle_text(circle: GeoCircle) -> str:
    """What `read_circle` reads."""
    return _text(circle.latitude, circle.longitude, circle.km)


def read_size(text: str) -> int:
    """A number of bytes from "500 kB", "2.5MB" or "1000". Raises `LibraryError` for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise LibraryError(f"{text!r} is not a size, such as 500kB or 2.5MB")
    return int(float(found[1]) * _UNITS[(found[2] or "").lower()])


def days_ago(text: str) -> int | None:
    """The number of days in "30d", "last 30 days" or "2 weeks"; None for any other text."""
    found = _DAYS_AGO.fullmatch(text.strip())
    if found is None:
        return None
    days = int(found[1]) * _DAYS[found[2][0].lower()]
    return days if days <= (date.today() - EARLIEST).days else None


def day_so_long_ago(days: int) -> date:
    """The day that is so many days before today."""
    return date.today() - timedelta(days)


def _numbers(text: str) -> list[float]:
    parts = [part.strip() for part in text.split(",")]
    return [float(part) for part in parts] if all(map(_NUMBER.fullmatch, parts)) else []


def _text(*numbers: float) -> str:
    return ",".join(f"{number:.6f}".rstrip("0").rstrip(".") for number in numbers)


def _check(latitude: float, longitude: float) -> None:
    if not (math.isfinite(latitude) and -90 <= latitude <= 90):
        raise LibraryError(f"a latitude is -90 to 90, not {latitude:g}")
    if not (math.isfinite(longitude) and -180 <= longitude <= 180):
        raise LibraryError(f"a longitude is -180 to 180, not {longitude:g}")
