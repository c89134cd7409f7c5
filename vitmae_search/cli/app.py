"""The command `vitmae-search app`."""

from __future__ import annotations

from pathlib import Path

import click

from vitmae_search.cli.common import PathOnDisk, catalog_option, vectors_option
from vitmae_search.errors import VitmaeSearchError
from vitmae_search.settings import catalog_address, named_library, settings

port_option = click.option(
    "--port", type=click.IntRange(1, 65535), help="[default: 8501, or the next free one]"
)
browser_option = click.option(
    "--browser/--no-browser", default=True, help="Open a browser window, where there is a display."
)


@click.command("app")
@click.option(
    "--library",
    "libraries",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR|NAME",
    multiple=True,
    help="The library's folder, or its name in VITMAE_SEARCH_LIBRARIES. Several are offered to choose from.  "
    "[default: VITMAE_SEARCH_LIBRARY, or your user-data folder]",
)
@catalog_option
@vectors_option
@port_option
@browser_option
@click.option("--address", metavar="IP", help="Listen on this address of the machine.  [default: 127.0.0.1]")
@click.option("--base-path", metavar="PATH", help="Serve the app below a path, such as /photos.")
@click.option("--host-name", "host_names", metavar="NAME", multiple=True, help="A name to open it under.")
@click.option(
    "--password-file", type=PathOnDisk(path_type=Path), metavar="FILE", help="Ask for the password in FILE."
)
@click.option("--token", is_flag=True, help="Make a password if there is none, and print a link with it.")
@click.option("--trust-proxy", metavar="IP", help="Believe X-Forwarded headers from this proxy.")
def command(
    libraries: tuple[Path, ...],
    port: int | None,
    browser: bool,
    address: str | None,
    base_path: str | None,
    host_names: tuple[str, ...],
    password_file: Path | None,
    token: bool,
    trust_proxy: str | None,
) -> int:
    """Open the library in the browser. Without --address it listens on this machine only.

    For others to open it, it needs a password: a file of yours that holds it, the variable
    VITMAE_SEARCH_PASSWORD, or --token.
    """
    from vitmae_search.web.server.launch import LOOPBACK, Access, launch

    environment = settings()  # read here, so that an error in it is the command's and not the server's
    access = Access(address or LOOPBACK, base_path or "", host_names, password_file, token, trust_proxy)
    first, *others = map(named_library, libraries or (environment.library,))
    if others and catalog_address() is not None:
        raise VitmaeSearchError("a catalogue in a database is of one library: name one with --library")
    return launch(first, port, browser, access, others)
