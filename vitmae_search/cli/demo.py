"""The command `vitmae-search demo`."""

from __future__ import annotations

from pathlib import Path

import click

from vitmae_search.cli.app import browser_option, port_option
from vitmae_search.cli.common import library_option, open_library
from vitmae_search.errors import display_path
from vitmae_search.settings import settings


@click.command("demo")
@click.argument("folder", required=False, type=click.Path())
@library_option
@port_option
@browser_option
@click.option("--no-app", is_flag=True, help="Index, and do not open the app.")
def command(folder: str | None, library: Path | None, port: int | None, browser: bool, no_app: bool) -> int:
    """Index a folder of sample photos and open the app on it.

    The samples are fifteen real photos in ten views each (crops, tilts, tones), so a search has a known
    right answer. With FOLDER, your own photos are indexed instead, into a library of their own.
    """
    from vitmae_search.cli.index import print_report
    from vitmae_search.cli.progress import show_progress
    from vitmae_search.library import write_samples
    from vitmae_search.web.server.launch import launch

    home = settings().library.parent
    where = library or home / ("demo-own" if folder else "demo")
    photos = Path(folder) if folder else where / "sample-photos"
    if not folder:
        click.echo(f"writing sample photos to {display_path(photos)}", err=True)
        write_samples(photos)
    with open_library(where) as opened, show_progress() as on_progress:
        report = opened.index(photos, on_progress=on_progress)
    print_report(report)
    return 0 if no_app else launch(where.absolute(), port, browser)
