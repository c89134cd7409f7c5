"""The options that filter photos, as `search`, `list` and `export` have them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, time
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from vitmae_search.cli.common import tags_line
from vitmae_search.errors import display_path
from vitmae_search.records import Orientation, SearchFilter

if TYPE_CHECKING:
    from vitmae_search.library import Library

F = TypeVar("F", bound=Callable[..., Any])

DATE_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]

_OPTIONS = (
    click.option("--under", type=click.Path(), metavar="FOLDER", help="Only photos in this folder."),
    click.option(
        "--after", type=click.DateTime(DATE_FORMATS), metavar="DATE", help="Taken on this day or later."
    ),
    click.option(
        "--before", type=click.DateTime(DATE_FORMATS), metavar="DATE", help="Taken on this day or earlier."
    ),
    click.option("--camera", metavar="TEXT", help="Taken with a camera whose name holds this text."),
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
NAMES = (
    "under",
    "after",
    "before",
    "camera",
    "format",
    "orientation",
    "tag",
    "min_confidence",
    "favourite",
    "min_rating",
    "album",
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
    under = filters["under"]
    where = SearchFilter(**{**filters, "min_confidence": filters["min_confidence"] or 0.0})
    where = replace(where, before=_end_of_day(where.before))
    if where.tag:
        where = replace(where, tag=_known_tag(library, where.tag))
    if where.album is not None and where.album not in library.albums():
        names = ", ".join(map(display_path, library.albums())) or "none"
        click.echo(f"there is no album {display_path(where.album)!r}; there are: {names}", err=True)
    if under is not None:
        where = replace(where, under=os.path.abspath(os.path.expanduser(under)))
        _check_folder(library, where.under or "")
    return where


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
