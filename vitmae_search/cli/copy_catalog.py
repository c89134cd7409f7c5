"""The command `vitmae-search copy-catalog`."""

from __future__ import annotations

from pathlib import Path

import click

from vitmae_search.cli.common import json_option, library_option, open_library, print_json


@click.command("copy-catalog")
@library_option
@json_option
def command(library: Path | None, as_json: bool) -> None:
    """Copy the library's catalogue from its file into the empty PostgreSQL database that --catalog names.

    Photos, vectors, spaces, tags, marks, albums, saved searches and jobs keep their ids; no photo is read.
    The file stays as it is. From then on use --catalog, or VITMAE_SEARCH_CATALOG, with every command.
    """
    with open_library(library) as opened:
        rows = opened.copy_catalog()
    if as_json:
        print_json({"rows": rows})
    else:
        click.echo(
            f"copied {rows['photos']} photos with {rows['embeddings']} vectors, {rows['tags']} tags, "
            f"{rows['marks']} marks and {rows['albums']} albums"
        )
