"""The command `vitmae-search mark`."""

from __future__ import annotations

from pathlib import Path

import click

from vitmae_search.cli.common import json_option, library_option, open_library, print_json
from vitmae_search.cli.pictures import photos_argument


@click.command("mark")
@photos_argument
@click.option("--favourite/--no-favourite", default=None, help="Make them favourites, or not any more.")
@click.option("--rating", type=click.IntRange(0, 5), help="1 to 5; 0 takes the rating away.")
@library_option
@json_option
def command(
    photos: list[str | int],
    favourite: bool | None,
    rating: int | None,
    library: Path | None,
    as_json: bool,
) -> None:
    """Make each PHOTO (its path, or id:N) a favourite, or rate it.

    This is kept in the library, not in the file. It stays with a photo that is moved, renamed, edited or
    indexed again, and copies share it. `undo` takes the last change back.
    """
    if favourite is None and rating is None:
        raise click.UsageError("give --favourite, --no-favourite or --rating")
    with open_library(library) as opened:
        marked = opened.mark(opened.photo_ids(photos), favourite=favourite, rating=rating)
    if as_json:
        print_json({"marked": marked})
    else:
        click.echo("marked 1 photo" if marked == 1 else f"marked {marked} photos")
