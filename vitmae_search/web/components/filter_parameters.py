"""The filters of photos as parameters of an address, which pages and the routes of `server.routes` read.

`?under=2023&camera=canon&after=2023-05-01&before=2023-06-30&type=JPEG&shape=portrait&tag=cat&tag_sure=50&sort=name`:
a value that cannot be read counts as none. `after=30d` is thirty days before today.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any, Literal, cast, get_args

from vitmae_search import filter_values
from vitmae_search.errors import LibraryError, display_path
from vitmae_search.filter_values import (
    EARLIEST,
    box_text,
    circle_text,
    day_so_long_ago,
    read_box,
    read_circle,
)
from vitmae_search.records import MinScore, Orientation, PhotoOrder, SearchFilter
from vitmae_search.web.components import map_area, plain_text
from vitmae_search.web.components.typed_folder import folder_with_photos
from vitmae_search.web.server.session import library

PARAMETERS = (
    "under",
    "camera",
    "lens",
    "place",
    "size",
    "after",
    "before",
    "tag",
    "tag_sure",
    "type",
    "shape",
    "favourites",
    "rating",
    "album",
    "area",
    "alike",
)
"""The parameters that say which photos; "sort" says in which order."""

# Streamlit's own range is ten years around today.
LATEST = date(2100, 1, 1)

Alike = Literal["", "same", "alike"]

_DAYS_AGO = re.compile("[0-9]{1,5}d")
_MEGABYTES = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)?-([0-9]{1,9}(?:\.[0-9]{1,6})?)?")


@dataclass(frozen=True, slots=True)
class Filters:
    """What an address asks for.

    Attributes:
        where: Which photos.
        min_score: The least score of a hit.
        days: Where the first day is so many days before today: that number.
        problem: A sentence, where the address asks for what cannot be followed; else empty.
    """

    where: SearchFilter
    min_score: MinScore
    days: int | None
    problem: str


def read_filters(parameters: Mapping[str, str]) -> Filters:
    """The filters that an address has."""
    under, problem = _text_of(parameters, "under"), ""
    if under:
        try:
            under = folder_with_photos(under)
        except LibraryError as error:
            problem = plain_text.as_sentence(error)
    days = days_ago(_text_of(parameters, "after"))
    after = day_so_long_ago(days) if days is not None else _day_of(parameters, "after")
    before = _day_of(parameters, "before")
    tag, min_confidence = read_tag(parameters)
    least, most = _read_size(_text_of(parameters, "size"))
    shape, rating, album = (_text_of(parameters, name) for name in ("shape", "rating", "album"))
    photo_ids = None
    if area := _text_of(parameters, "area"):
        photo_ids = map_area.photo_ids(area)
        problem = problem or ("" if photo_ids is not None else map_area.PROBLEM)
    where = SearchFilter(
        under=under or None,
        camera=_text_of(parameters, "camera") or None,
        after=None if after is None else datetime.combine(after, time.min),
        before=None if before is None else datetime.combine(before, time.max),
        tag=tag,
        min_confidence=min_confidence,
        format=_text_of(parameters, "type") or None,
        orientation=cast(Orientation, shape) if shape in get_args(Orientation) else None,
        favourite=parameters.get("favourites") == "on",
        min_rating=int(rating) if rating in set("12345") else 0,
        album=album if album in library().albums() else None,
        photo_ids=photo_ids,
        lens=_text_of(parameters, "lens") or None,
        min_bytes=least,
        max_bytes=most,
        **_read_place(_text_of(parameters, "place")),
    )
    return Filters(where, read_alike(parameters) or None, days, problem)


def place_text(where: SearchFilter) -> str | None:
    """What a filter says of places, as the address has it: parts with a semicolon between them."""
    parts = [] if where.box is None else [box_text(where.box)]
    parts += [] if where.near is None else [circle_text(where.near)]
    parts += [] if where.has_place is None else ["on" if where.has_place else "off"]
    return ";".join(parts) or None


def size_text(where: SearchFilter) -> str | None:
    """The sizes of a filter in megabytes, as the address has them: "1-5" is 1 MB or more, and less than 5."""
    if where.min_bytes is None and where.max_bytes is None:
        return None
    least = "" if where.min_bytes is None else _megabytes(where.min_bytes)
    return f"{least}-{'' if where.max_bytes is None else _megabytes(where.max_bytes + 1)}"


def read_order(parameters: Mapping[str, str]) -> PhotoOrder | None:
    """The order that an address asks for; None where it asks for none."""
    text = _text_of(parameters, "sort")
    return cast(PhotoOrder, text) if text in get_args(PhotoOrder) else None


def read_tag(parameters: Mapping[str, str], name: str = "tag") -> tuple[str | None, float]:
    """The tag that an address has.

    Args:
        parameters: The address's parameters.
        name: The one that holds the tag; the one of its confidence, in percent, is `name` + "_sure".

    Returns:
        The tag, None for any or one that no photo has, and its least confidence, 0 to 1.
    """
    tag = parameters.get(name)
    if tag is None or tag not in library().tag_counts():
        return None, 0.0
    percent = parameters.get(f"{name}_sure", "0")
    return tag, min(100, int(percent)) / 100 if percent.isdecimal() and len(percent) < 4 else 0.0


def read_alike(parameters: Mapping[str, str]) -> Alike:
    """Which hits an address asks for, by what their scores mean; empty for all."""
    asked = _text_of(parameters, "alike")
    return next((choice for choice in alike_choices() if choice == asked), "")


def alike_choices() -> list[Alike]:
    """Which hits may be chosen by what their scores mean; only all, where that was not measured."""
    calibration = next((space.calibration for space in library().spaces() if space.current), None)
    choices: list[Alike] = [""]
    if calibration is not None and calibration.alike is not None:
        choices.append("alike")
    if calibration is not None and calibration.same is not None:
        choices.append("same")
    return choices


def days_ago(text: str) -> int | None:
    """The number of days of a relative date, "30d"; None for any other text."""
    return filter_values.days_ago(text) if _DAYS_AGO.fullmatch(text) else None


def span_text(filters: Filters) -> str | None:
    """The days that a filter lets pass, in words: "March 2024", "last 30 days"; None where it is all."""
    after, before = filters.where.after, filters.where.before
    if filters.days is not None and before is None:
        return f"last {filters.days} days"
    if after is None and before is None:
        return None
    if after is None or before is None:
        return f"from {_day_text(after)}" if after is not None else f"until {_day_text(before)}"
    first, last = after.date(), before.date()
    if first == last:
        return _day_text(after)
    if (first, last) == (date(first.year, 1, 1), date(first.year, 12, 31)):
        return str(first.year)
    month_end = calendar.monthrange(first.year, first.month)[1]
    if (first, last) == (first.replace(day=1), first.replace(day=month_end)):
        return f"{first:%B %Y}"
    return f"{_day_text(after)} to {_day_text(before)}"


def folder_text(folder: str) -> str:
    """A folder inside an indexed one, from that one's own name on."""
    for root in library().status().roots:
        if folder == root.path or folder.startswith(root.path.rstrip("/\\") + "/"):
            start = max(root.path.rstrip("/\\").rfind("/"), root.path.rstrip("/\\").rfind("\\"))
            return display_path(folder[start + 1 :])
    return display_path(folder)


def in_words(filters: Filters) -> Iterator[tuple[str, str]]:
    """(parameter, words) of each filter that has no list of its own to choose from."""
    if filters.where.tag is not None and filters.where.min_confidence:
        yield "tag_sure", f"at least {filters.where.min_confidence:.0%} sure"
    if filters.where.photo_ids is not None:
        yield "area", f"Area of the map ({len(filters.where.photo_ids):,})"
    if filters.min_score is not None:
        yield "alike", "the same photo" if filters.min_score == "same" else "those that are alike"


def place_words(where: SearchFilter) -> str | None:
    """What a filter says of places, in words; None where it says nothing."""
    words = []
    if where.box is not None:
        box = where.box
        words.append(
            f"{_latitude(box.south)} to {_latitude(box.north)}, {_east(box.west)} to {_east(box.east)}"
        )
    if where.near is not None:
        circle = where.near
        point = f"{_latitude(circle.latitude)}, {_east(circle.longitude)}"
        words.append(f"within {circle.km:g} km of {point}")
    if where.has_place is not None:
        words.append("with a place" if where.has_place else "without a place")
    return "; ".join(words) or None


def size_words(where: SearchFilter) -> str | None:
    """The sizes of a filter in words; None where it says nothing."""
    least = None if where.min_bytes is None else _megabytes(where.min_bytes)
    most = None if where.max_bytes is None else _megabytes(where.max_bytes + 1)
    if least in (None, "0"):
        return None if most is None else f"less than {most} MB"
    return f"{least} MB or more" if most is None else f"{least} to {most} MB"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.6f}".rstrip("0").rstrip(".")


def _latitude(degrees: float) -> str:
    return f"{abs(degrees):.6g}° {'N' if degrees >= 0 else 'S'}"


def _east(degrees: float) -> str:
    return f"{abs(degrees):.6g}° {'E' if degrees >= 0 else 'W'}"


def _read_size(text: str) -> tuple[int | None, int | None]:
    """The least and the greatest number of bytes."""
    found = _MEGABYTES.fullmatch(text)
    if found is None:
        return None, None
    least, most = (None if part is None else round(float(part) * 1e6) for part in found.groups())
    return least, None if most is None else most - 1


def _read_place(text: str) -> dict[str, Any]:
    """Fields of a filter; what cannot be read says nothing."""
    found: dict[str, Any] = {}
    for part in text.split(";"):
        if part in ("on", "off"):
            found["has_place"] = part == "on"
            continue
        with suppress(LibraryError):
            if part.count(",") == 3:
                found["box"] = read_box(part)
            elif part.count(",") == 2:
                found["near"] = read_circle(part)
    return found


def _day_text(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.day} {moment:%B %Y}"


def _text_of(parameters: Mapping[str, str], name: str) -> str:
    return parameters.get(name, "").strip()


def _day_of(parameters: Mapping[str, str], name: str) -> date | None:
    try:
        day = date.fromisoformat(_text_of(parameters, name))
    except ValueError:
        return None
    return day if EARLIEST <= day <= LATEST else None
