"""The command `vitmae-search albums`."""

from __future__ import annotations

from pathlib import Path

import click

from vitmae_search.cli.common import inherited, json_option, library_option, open_library, print_json
from vitmae_search.cli.pictures import photos_argument
from vitmae_search.errors import display_path


@click.group("albums", invoke_without_command=True)
@library_option
@json_option
@click.pass_context
def command(ctx: click.Context, library: Path | None, as_json: bool) -> None:
    """List albums; add photos, take them out, rename or delete one.

    An album is a list of photos in the library: no file is moved or copied. `search --album NAME` and
    `list --album NAME` look in one. `undo` takes the last change back.
    """
    if ctx.invoked_subcommand is None:
        _show(library, as_json)


@command.command("add")
@click.argument("name")
@photos_argument
@library_option
@json_option
@click.pass_context
def add(ctx: click.Context, name: str, photos: list[str | int], library: Path | None, as_json: bool) -> None:
    """Put each PHOTO (its path, or id:N) into the album NAME, which is made if there is none."""
    library, as_json = inherited(ctx, library, as_json)
    with open_library(library) as opened:
        opened.add_to_album(name, opened.photo_ids(photos))
    _show(library, as_json)


@command.command("remove")
@click.argument("name")
@photos_argument
@library_option
@json_option
@click.pass_context
def remove(
    ctx: click.Context, name: str, photos: list[str | int], library: Path | None, as_json: bool
) -> None:
    """Take each PHOTO (its path, or id:N) out of the album NAME."""
    library, as_json = inherited(ctx, library, as_json)
    with open_library(library) as opened:
        opened.remove_from_album(name, opened.photo_ids(photos))
    _show(library, as_json)


@command.command("rename")
@click.argument("name")
@click.argument("new_name")
@library_option
@json_option
@click.pass_context
def rename(ctx: click.Context, name: str, new_name: str, library: Path | None, as_json: bool) -> None:
    """Give the album NAME the name NEW_NAME."""
    library, as_json = inherited(ctx, library, as_json)
    with open_library(library) as opened:
        opened.rename_album(name, new_name)
    _show(library, as_json)


@command.command("delete")
@click.argument("name")
@library_option
@json_option
@click.pass_context
def delete(ctx: click.Context, name: str, library: Path | None, as_json: bool) -> None:
    """Delete the album NAME. Its photos stay."""
    library, as_json = inherited(ctx, library, as_json)
    with open_library(library) as opened:
        opened.delete_album(name)
    _show(library, as_json)


def _show(library: Path | None, as_json: bool) -> None:
    with open_library(library) as opened:
        albums = opened.albums()
    if as_json:
        print_json({"albums": albums})
        return
    if not albums:
        click.echo("there are no albums; `vitmae-search albums add NAME PHOTO...` makes one")
    for name, photos in albums.items():
        click.echo(f"{photos:6d}  {display_path(name)}")
