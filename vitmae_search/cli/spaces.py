"""The command `vitmae-search spaces`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from vitmae_search.cli.common import (
    PathOnDisk,
    inherited,
    json_option,
    library_option,
    open_library,
    print_json,
)
from vitmae_search.records import Coverage, Space


@click.group("spaces", invoke_without_command=True)
@library_option
@json_option
@click.pass_context
def command(ctx: click.Context, library: Path | None, as_json: bool) -> None:
    """List the embedding spaces; use, derive or drop one.

    A space holds the vectors of one model with one set of options; vectors of different spaces are never
    compared. Searches use the current space. A space of features keeps what a model gives; one that is
    derived from it by a projection follows it, and takes a moment to make.
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
    library, as_json = inherited(ctx, library, as_json)
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
    library, as_json = inherited(ctx, library, as_json)
    with open_library(library) as opened:
        opened.drop_space(space_id)
    _show(library, as_json)


@command.command("derive")
@click.argument("file", required=False, type=PathOnDisk(dir_okay=False), metavar="[FILE]")
@click.option(
    "--from", "parent", type=int, metavar="ID", help="The space of features.  [default: the current]"
)
@click.option("--keep-current", is_flag=True, help="Go on searching in the space that is current now.")
@library_option
@json_option
@click.pass_context
def derive(
    ctx: click.Context,
    file: str | None,
    parent: int | None,
    keep_current: bool,
    library: Path | None,
    as_json: bool,
) -> None:
    """Make a space from stored features by the projection in FILE, and search in it from now on.

    Without FILE it is the projection that came with the model. No photo is read.
    """
    library, as_json = inherited(ctx, library, as_json)
    with open_library(library) as opened:
        opened.derive_space(file, parent=parent, use=not keep_current)
    _show(library, as_json)


def _show(library: Path | None, as_json: bool) -> None:
    with open_library(library) as opened:
        spaces = opened.spaces()
        coverage = {space.space_id: opened.coverage(space.space_id) for space in spaces}
    if as_json:
        print_json(
            {"spaces": [{**space_json(one), **_coverage_json(coverage[one.space_id])} for one in spaces]}
        )
        return
    if not spaces:
        click.echo("no spaces yet; `vitmae-search index FOLDER` makes the first")
    for space in spaces:
        mark = "*" if space.current else " "
        options = " ".join(f"{key}={value}" for key, value in space.options.items() if key != "model")
        click.echo(
            f"{mark} {space.space_id:3d}  {space.plugin}  {space.model}  {derivation_text(space, spaces)}  "
            f"{space.vectors} vectors of {space.dimension}  decode={space.decode} {options}"
        )
        covered = coverage[space.space_id]
        if covered is not None:
            click.echo(f"       {covered.covered}")


def _coverage_json(coverage: Coverage | None) -> dict[str, object]:
    return {"coverage": None if coverage is None else asdict(coverage)}


def derivation_text(space: Space, spaces: Sequence[Space]) -> str:
    """What a space is derived from, or what is derived from it, as text.

    Args:
        space: The space.
        spaces: All spaces of the library.
    """
    if space.projection is not None:
        return f"{space.kind} {space.projection[:12]} of space {space.parent_id}"
    derived = [str(other.space_id) for other in spaces if other.parent_id == space.space_id]
    return f"features (of {', '.join(derived)})" if derived else "features"


def space_json(space: Space) -> dict[str, object]:
    """A space as `spaces --json` and `status --json` show it."""
    return {
        "id": space.space_id,
        "current": space.current,
        "plugin": space.plugin,
        "model": space.model,
        "kind": space.kind,
        "parent": space.parent_id,
        "projection": space.projection,
        "options": dict(space.options),
        "dimension": space.dimension,
        "decode": space.decode,
        "vectors": space.vectors,
        "revision": space.revision,
        "fingerprint": space.fingerprint,
        "provenance": dict(space.provenance),
        "created_at": space.created_at,
    }
