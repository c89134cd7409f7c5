"""The command `vitmae-search plugins`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from vitmae_search.cli.common import json_option, library_option, open_library, print_json
from vitmae_search.errors import display_path


@click.command("plugins")
@library_option
@json_option
def command(library: Path | None, as_json: bool) -> None:
    """List the embedding plugins and their options.

    Put a plugin of your own, a Python file or folder, into the folder that VITMAE_SEARCH_PLUGINS names.
    """
    with open_library(library) as opened:
        plugins = opened.plugins()
    if as_json:
        print_json({"plugins": [dataclasses.asdict(plugin) for plugin in plugins]})
        return
    for plugin in plugins:
        title = f"{plugin.title}  " if plugin.title else ""
        click.echo(f"{plugin.name:16s} {title}({display_path(plugin.origin)})")
        if plugin.error:
            click.echo(f"    does not load: {' '.join(plugin.error.split())}")
        for key, value in plugin.options.items():
            click.echo(f"    -o {key}={value}")
