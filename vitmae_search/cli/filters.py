"""The options that filter photos, as `search`, `list` and `export` have them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, time
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from vitmae_search.address import absolute_path
from vitmae_search.cli.common import tags_line
from vitmae_search.errors import LibraryError, display_path
from vitmae_search.filter_values import (
    LONGEST_DISTANCE_KM,
    day_so_long_ago,
    days_ago,
    read_box,
    read_point,
    read_size,
)
from vitmae_search.records import GeoCircle, Orientation, SearchFilter

if TYPE_CHECKING:
    from vitmae_search.library import Library

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_KM = 10.0
DATE_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


class _Date(click.DateTime):
    """A day, with or without a time, or one so many days, weeks or years ago."""

    def __init__(self) -> None:
        super().__init__(DATE_FORMATS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        days = days_ago(value) if isinstance(value, str) else None
        if days is not None:
            return datetime.combine(day_so_long_ago(days), time.min)
        return super().convert(value, param, ctx)


def _read_with(reader: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A callback of click that reads what was given."""

    def callback(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else reader(value)
        except LibraryError as error:
            raise click.BadParameter(str(error), ctx, parameter) from None

    return callback


_OPTIONS = (
    click.option("--under", type=click.Path(), metavar="FOLDER", help="Only photos in this folder."),
    click.option(
        "--after", type=_Date(), metavar="DATE", help="Taken on this day or later; `30d` is thirty days ago."
    ),
    click.option("--before", type=_Date(), metavar="DATE", help="Taken on this day or earlier."),
    click.option("--camera", metavar="TEXT", help="Taken with a camera whose name holds this text."),
    click.option("--lens", metavar="TEXT", help="Taken with a lens whose name holds this text."),
    click.option(
        "--box",
        metavar="S,W,N,E",
        callback=_read_with(read_box),
        help="Taken between these latitudes and longitudes, in degrees; west of 180 and east of it too.",
    ),
    click.option(
        "--near",
        metavar="LAT,LON|IMAGE|id:N",
        help="Taken near this point, or near where a photo of the library was taken.",
    ),
    click.option(
        "--within",
        type=click.FloatRange(0, LONGEST_DISTANCE_KM, min_open=True),
        metavar="KM",
        help=f"With --near: at most so many kilometres away.  [default: {DEFAULT_KM:g}]",
    ),
    click.option(
        "--has-place/--no-place",
        default=None,
        help="Only photos that say where they were taken, or only the others.",
    ),
    click.option(
        "--min-size",
        "min_bytes",
        metavar="SIZE",
        callback=_read_with(read_size),
        help="Only files of this size or larger, such as 2MB.",
    ),
    click.option(
        "--max-size",
        "max_bytes",
        metavar="SIZE",
        callback=_read_with(read_size),
        help="Only files of this size or smaller.",
    ),
    click.option(
        "--type",
        "format",
        metavar="FORMAT",
        callback=lambda _ctx, _parameter, value: value and value.upper(),
        help="Files of this format only, such as PNG.",
    ),
    click.option(
        "--shape", "orientation", type=click.Choice(get_args(Orientation)), help="Photos of this shape only."
    ),
    click.option("--tag", metavar="TEXT", help="Only photos that `classify` gave this tag."),
    click.option(
        "--min-confidence",
        type=click.FloatRange(0, 1),
        help="With --tag: only where it was at least this sure.",
    ),
    click.option("--favourites", "favourite", is_flag=True, help="Only your favourites."),
    click.option(
        "--min-rating", type=click.IntRange(0, 5), default=0, help="Only photos rated so or higher."
    ),
    click.option("--album", metavar="NAME", help="Only photos of this album."),
)


def filter_options(command: F) -> F:
    """Add the options; the command's `**filters` goes to `read_filter`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_filter(library: Library, filters: dict[str, Any]) -> SearchFilter:
    """The filter that the options give. What no photo can pass is said on stderr.

    Args:
        library: The library.
        filters: The values of `filter_options`.
    """
    if filters["min_confidence"] is not None and not filters["tag"]:
        raise click.UsageError("--min-confidence goes with --tag")
    if filters["within"] is not None and not filters["near"]:
        raise click.UsageError("--within goes with --near")
    under = filters["under"]
    near = filters["near"] and _read_near(library, filters["near"], filters["within"] or DEFAULT_KM)
    given = {name: value for name, value in filters.items() if name != "within"}
    where = SearchFilter(**{**given, "near": near, "min_confidence": filters["min_confidence"] or 0.0})
    where = replace(where, before=_end_of_day(where.before))
    if where.tag:
        where = replace(where, tag=_known_tag(library, where.tag))
    if where.album is not None and where.album not in library.albums():
        names = ", ".join(map(display_path, library.albums())) or "none"
        click.echo(f"there is no album {display_path(where.album)!r}; there are: {names}", err=True)
    if under is not None:
        where = replace(where, under=absolute_path(under))
        _check_folder(library, where.under or "")
    return where


def _read_near(library: Library, text: str, km: float) -> GeoCircle:
    """What lies around a point, or around where a photo was taken."""
    try:
        return GeoCircle(*read_point(text), km)
    except LibraryError:
        if text.count(",") == 1 and not os.path.exists(text):
            raise
    number = re.fullmatch("id:([0-9]{1,18})", text)
    (photo_id,) = library.photo_ids([int(number[1]) if number else text])
    return library.around(photo_id, km)


def _known_tag(library: Library, text: str) -> str:
    """The library's tag that equals `text`, whatever its case; else `text`, with a message on stderr."""
    tags = library.tag_counts()
    if text in tags:
        return text
    alike = [tag for tag in tags if tag.casefold() == text.casefold()]
    if not alike:
        there = f"there are: {tags_line(tags)}" if tags else "no photo has one; see `vitmae-search classify`"
        click.echo(f"no photo has the tag {display_path(text)!r}; {there}", err=True)
    return alike[0] if alike else text


def _check_folder(library: Library, folder: str) -> None:
    """Say so on stderr if the library has no photo in a folder."""
    if library.photos(SearchFilter(under=folder), limit=1):
        return
    roots = [display_path(root.path) for root in library.status().roots]
    there = f"; indexed were {', '.join(roots)}" if roots else ""
    click.echo(f"the library has no photo in {display_path(folder)}{there}", err=True)


def _end_of_day(date: datetime | None) -> datetime | None:
    """`--before 2020-05-01` includes that day: a date without a time becomes its last moment."""
    if date is not None and (date.hour, date.minute, date.second) == (0, 0, 0):
        return datetime.combine(date, time.max)
    return date
