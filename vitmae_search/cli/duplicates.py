"""The command `vitmae-search duplicates`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vitmae_search.cli.common import (
    PathOnDisk,
    inherited,
    json_option,
    library_option,
    open_library,
    print_json,
)
from vitmae_search.cli.filters import filter_options, read_filter
from vitmae_search.cli.pictures import photos_argument
from vitmae_search.cli.search import read_min_score
from vitmae_search.errors import display_path
from vitmae_search.records import DuplicateReport, MinScore


@click.group("duplicates", invoke_without_command=True)
@filter_options
@click.option(
    "--min-score",
    metavar="same|SCORE",
    default="same",
    show_default=True,
    callback=read_min_score,
    help="The least score of near-duplicates. `same`: the one of the same photo in 99 of 100 cases.",
)
@click.option("--space", type=int, metavar="ID", help="Compare in this space instead of the current one.")
@click.option("--ignored", is_flag=True, help="Also groups that you ignored.")
@click.option(
    "--csv", "table", type=PathOnDisk(path_type=Path), metavar="FILE", help="Write the list to FILE, too."
)
@library_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    min_score: MinScore,
    space: int | None,
    ignored: bool,
    table: Path | None,
    library: Path | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """List groups of photos that are nearly the same, the one to keep first.

    The first is your choice (`duplicates keep`), else the one with most pixels, without losses, sharpest, in
    the largest file. Each other one has at least the least score with it. No photo is changed or deleted.
    """
    if ctx.invoked_subcommand is not None:
        return
    with open_library(library) as opened:
        where = read_filter(opened, filters)
        found = opened.duplicates(where, min_score=min_score, space=space, ignored=ignored)
    if table is not None:
        from vitmae_search.library.export import write_table

        write_table(table, _columns(found), suffix=".csv")
    if as_json:
        print_json(report_json(found))
    else:
        _print(found)


@command.command("keep")
@photos_argument
@click.option("--undo", "again", is_flag=True, help="Take the choice back.")
@library_option
@json_option
@click.pass_context
def keep(
    ctx: click.Context, photos: list[str | int], again: bool, library: Path | None, as_json: bool
) -> None:
    """Choose each PHOTO (its path, or id:N) as the one to keep: it comes first in its group."""
    library, as_json = inherited(ctx, library, as_json)
    with open_library(library) as opened:
        decided = opened.keep(opened.photo_ids(photos), keep=not again)
    _decided("kept", decided, as_json)


@command.command("ignore")
@photos_argument
@library_option
@json_option
@click.pass_context
def ignore(ctx: click.Context, photos: list[str | int], library: Path | None, as_json: bool) -> None:
    """Ignore the group of these PHOTOs, the first one first, until it gets another photo."""
    library, as_json = inherited(ctx, library, as_json)
    with open_library(library) as opened:
        decided = opened.ignore_duplicates(opened.photo_ids(photos))
    _decided("ignored", decided, as_json)


@command.command("different")
@photos_argument
@library_option
@json_option
@click.pass_context
def different(ctx: click.Context, photos: list[str | int], library: Path | None, as_json: bool) -> None:
    """Say that the first PHOTO is no duplicate of the others, for good."""
    library, as_json = inherited(ctx, library, as_json)
    with open_library(library) as opened:
        first, *others = opened.photo_ids(photos)
        decided = opened.not_duplicates(first, others)
    _decided("different", decided, as_json)


def report_json(found: DuplicateReport) -> dict[str, object]:
    """The keys of `duplicates --json`."""
    return {
        "groups": [
            {
                "ignored": group.ignored,
                "photos": [
                    {
                        "photo_id": shown.photo.photo_id,
                        "path": shown.photo.path,
                        "copies": list(shown.copies),
                        "score": shown.score,
                        "keep": shown.keep,
                        "width": shown.photo.metadata.width,
                        "height": shown.photo.metadata.height,
                        "format": shown.photo.metadata.format,
                        "bytes": shown.photo.size,
                    }
                    for shown in group.photos
                ],
            }
            for group in found.groups
        ],
        "min_score": found.score,
        "space": found.space,
        "compared": found.compared,
        "preview": [{"min_score": score, "groups": count} for score, count in found.preview.items()],
        "seconds": round(found.seconds, 3),
    }


def _decided(what: str, count: int, as_json: bool) -> None:
    if as_json:
        print_json({what: count})
    else:
        click.echo(f"{what}: {count}")


def _print(found: DuplicateReport) -> None:
    for number, group in enumerate(found.groups, start=1):
        click.echo(f"group {number}{' (ignored)' if group.ignored else ''}")
        for i, shown in enumerate(group.photos):
            meta = shown.photo.metadata
            word = "keep" if i == 0 else ""
            size = f"{meta.width}x{meta.height} {meta.format}"
            click.echo(f"  {word:4s}  {shown.score:.4f}  {size:18s}  {display_path(shown.photo.path)}")
            for copy in shown.copies:
                click.echo(f"        copy    {'':18s}  {display_path(copy)}")
    counts = ", ".join(f"{count} from {score:.4f} on" for score, count in found.preview.items())
    click.echo(f"{len(found.groups)} groups among {found.compared} photos; connected: {counts}")


def _columns(found: DuplicateReport) -> dict[str, list[Any]]:
    """The list as columns, a row for each file."""
    rows: list[dict[str, Any]] = []
    for number, group in enumerate(found.groups, start=1):
        for i, shown in enumerate(group.photos):
            meta = shown.photo.metadata
            for path in (shown.photo.path, *shown.copies):
                row = {"group": number, "keep": "yes" if i == 0 and path == shown.photo.path else "no"}
                row |= {"score": f"{shown.score:.6f}", "width": meta.width, "height": meta.height}
                rows.append({**row, "bytes": shown.photo.size, "path": path})
    names = ("group", "keep", "score", "width", "height", "bytes", "path")
    return {name: [row[name] for row in rows] for name in names}
