"""The command `vitmae-search prune`."""

from __future__ import annotations

from pathlib import Path

import click

from vitmae_search.cli.common import json_option, library_option, open_library, print_removal


@click.command("prune")
@library_option
@json_option
def command(library: Path | None, as_json: bool) -> None:
    """Remove photos from the library that are gone from disk.

    Their vectors and thumbnails go with them. Photos of a folder that is offline stay. Run `index` first, so
    that the library knows what is gone.
    """
    with open_library(library) as opened:
        report = opened.prune()
    print_removal(report, as_json)
