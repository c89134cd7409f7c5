"""The command `vitmae-search list`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vitmae_search.cli.common import (
    json_option,
    library_option,
    open_library,
    photo_text,
    print_json,
)
from vitmae_search.cli.filters import filter_options, read_filter


@click.command("list")
@filter_options
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many.  [default: all]")
@click.option("--offset", type=click.IntRange(0), default=0, metavar="N", help="Pass over the first N.")
@library_option
@json_option
def command(limit: int | None, offset: int, library: Path | None, as_json: bool, **filters: Any) -> None:
    """List the photos on disk, newest first, each with its number (id), rating and ♥ for a favourite.

    The filters are those of `search`. With --json also dates, sizes and albums.
    """
    with open_library(library) as opened:
        where = read_filter(opened, filters)
        photos = opened.photos(where, offset=offset, limit=limit)
        said = opened.marks_of(photo.digest for photo in photos)
        total = opened.count_photos(where)
    if as_json:
        from vitmae_search.library.json_forms import photo_json

        print_json({"photos": [photo_json(photo, said[photo.digest]) for photo in photos], "total": total})
        return
    for photo in photos:
        marks = said[photo.digest]
        stars = "★" * marks.rating or "-"
        click.echo(f"{photo.photo_id:8d}  {'♥' if marks.favourite else ' '} {stars:5s}  {photo_text(photo)}")
