"""The command `vitmae-search relocate`."""

from __future__ import annotations

from pathlib import Path

import click

from vitmae_search.cli.common import json_option, library_option, open_library, print_json


@click.command("relocate")
@click.argument("old", type=click.Path(), metavar="OLD")
@click.argument("new", type=click.Path(), metavar="NEW")
@library_option
@json_option
def command(old: str, new: str, library: Path | None, as_json: bool) -> None:
    """Tell the library that the folder OLD is NEW now, such as a drive under another name.

    Photos keep vectors, tags and marks, and no file is read. `index NEW` then says what has changed in it.
    """
    with open_library(library) as opened:
        photos = opened.relocate(old, new)
    if as_json:
        print_json({"photos": photos})
    else:
        click.echo(f"relocated {photos} photos; `vitmae-search index` looks what has changed in them")
