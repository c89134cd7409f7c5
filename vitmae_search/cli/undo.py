"""The command `vitmae-search undo`."""

from __future__ import annotations

from pathlib import Path

import click

from vitmae_search.cli.common import json_option, library_option, open_library, print_json


@click.command("undo")
@library_option
@json_option
def command(library: Path | None, as_json: bool) -> None:
    """Undo the last change to favourites, ratings, albums, saved searches or decisions on duplicates.

    The last twenty changes can be undone, one after the other. Indexing and forgetting are no such changes.
    """
    with open_library(library) as opened:
        undone = opened.undo()
    if as_json:
        print_json({"undone": undone})
    else:
        click.echo("there is nothing to undo" if undone is None else f"undone: {undone}")
