"""`vitmae-search spaces`."""

from __future__ import annotations

from pathlib import Path

import click

from vitmae_search.cli.common import json_option, library_option, open_library, print_json
from vitmae_search.records import Space


@click.group("spaces", invoke_without_command=True)
@library_option
@json_option
@click.pass_context
def command(ctx: click.Context, library: Path | None, as_json: bool) -> None:
    """List the embedding spaces; use or drop one.

    A space holds the vectors of one model with one set of options; vectors of different spaces are never
    compared. Searches use the current space.
    """
    if ctx.invoked_subcommand is None:
        _show(library, as_json)


@command.command("use")
@click.argument("space_id", type=int, metavar="ID")
@library_option
@json_option
@click.pass_context
def use(ctx: click.Context, space_id: int, library: Path | None, as_json: bool) -> None:
    """Search in space ID from now on."""
    library, as_json = _inherited(ctx, library, as_json)
    with open_library(library) as opened:
        opened.use_space(space_id)
    _show(library, as_json)


@command.command("drop")
@click.argument("space_id", type=int, metavar="ID")
@library_option
@json_option
@click.pass_context
def drop(ctx: click.Context, space_id: int, library: Path | None, as_json: bool) -> None:
    """Delete space ID with its vectors. The photos stay."""
    library, as_json = _inherited(ctx, library, as_json)
    with open_library(library) as opened:
        opened.drop_space(space_id)
    _show(library, as_json)


def _inherited(ctx: click.Context, library: Path | None, as_json: bool) -> tuple[Path | None, bool]:
    """The options may stand before or after the subcommand."""
    outer = ctx.parent.params if ctx.parent else {}
    return library or outer.get("library"), as_json or bool(outer.get("as_json"))


def _show(library: Path | None, as_json: bool) -> None:
    with open_library(library) as opened:
        spaces = opened.spaces()
    if as_json:
        print_json({"spaces": [space_json(space) for space in spaces]})
        return
    if not spaces:
        click.echo("no spaces yet; `vitmae-search index FOLDER` makes the first")
    for space in spaces:
        mark = "*" if space.current else " "
        options = " ".join(f"{key}={value}" for key, value in space.options.items() if key != "model")
        click.echo(
            f"{mark} {space.space_id:3d}  {space.plugin}  {space.model}  {space.vectors} vectors of "
            f"{space.dimension}  decode={space.decode} {options}"
        )


def space_json(space: Space) -> dict[str, object]:
    """A space as `spaces --json` and `status --json` show it."""
    return {
        "id": space.space_id,
        "current": space.current,
        "plugin": space.plugin,
        "model": space.model,
        "options": dict(space.options),
        "dimension": space.dimension,
        "decode": space.decode,
        "vectors": space.vectors,
        "revision": space.revision,
        "fingerprint": space.fingerprint,
        "provenance": dict(space.provenance),
        "created_at": space.created_at,
    }
