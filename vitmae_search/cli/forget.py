"""The command `vitmae-search forget`."""

from __future__ import annotations

from pathlib import Path

import click

from vitmae_search.cli.common import json_option, library_option, open_library, print_removal


@click.command("forget")
@click.argument("folder", type=click.Path(), metavar="FOLDER")
@library_option
@json_option
def command(folder: str, library: Path | None, as_json: bool) -> None:
    """Remove FOLDER from the library, with its photos' vectors and thumbnails.

    No photo file is touched. FOLDER need not be there: this is also how a drive leaves the library that will
    not come back.
    """
    with open_library(library) as opened:
        report = opened.forget(folder)
    print_removal(report, as_json)
