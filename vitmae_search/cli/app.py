"""The command `vitmae-search app`."""

from __future__ import annotations

from pathlib import Path

import click

from vitmae_search.cli.common import library_option
from vitmae_search.settings import settings

port_option = click.option(
    "--port", type=click.IntRange(1, 65535), help="[default: 8501, or the next free one]"
)
browser_option = click.option("--browser/--no-browser", default=True, help="Open a browser window.")


@click.command("app")
@library_option
@port_option
@browser_option
def command(library: Path | None, port: int | None, browser: bool) -> int:
    """Open the library in the browser. It listens on this machine only."""
    from vitmae_search.web.server.launch import launch

    environment = settings()  # read here, so that an error in it is the command's and not the server's
    return launch(library or environment.library, port, browser)
