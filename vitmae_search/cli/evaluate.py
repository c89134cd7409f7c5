"""The command `vitmae-search evaluate`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitmae_search.cli.common import (
    PathOnDisk,
    json_option,
    library_option,
    open_library,
    print_json,
)
from vitmae_search.cli.embedding_options import embedding_options
from vitmae_search.cli.index import SHOWN_FAILURES
from vitmae_search.errors import StorageError, display_path

if TYPE_CHECKING:
    from vitmae_search.library import Evaluation


def _check_folder(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """Refuse a file in a folder that is not there, before anything is measured."""
    if value is not None and not value.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {display_path(value.parent)}", ctx, parameter)
    return value


@click.command("evaluate")
@click.argument("folder", type=PathOnDisk(exists=True), metavar="FOLDER|FILE.csv")
@click.option(
    "--labels",
    metavar="FILE.csv",
    type=PathOnDisk(exists=True, dir_okay=False),
    help="Columns path (relative to FOLDER) and label.  [default: the first folder is the class]",
)
@click.option(
    "--instances",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="How many photos to change and look for, at most; 0 measures classes alone.",
)
@click.option("--limit", type=click.IntRange(2), metavar="N", help="Draw so many of the photos.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="What is drawn.")
@click.option("--no-variants", is_flag=True, help="Compare changed photos as they are.")
@embedding_options
@click.option(
    "--calibrate",
    is_flag=True,
    help="Write what the scores mean into the file that --projection names.",
)
@click.option(
    "--output",
    type=PathOnDisk(dir_okay=False, path_type=Path),
    metavar="FILE.md",
    callback=_check_folder,
    help="Write the tables as Markdown, too.",
)
@click.option(
    "--plot",
    type=PathOnDisk(dir_okay=False, path_type=Path),
    metavar="FILE.png",
    callback=_check_folder,
    help="Draw them, too.",
)
@library_option
@json_option
def command(
    folder: str,
    labels: str | None,
    instances: int,
    limit: int | None,
    seed: int,
    no_variants: bool,
    batch_size: int | None,
    calibrate: bool,
    output: Path | None,
    plot: Path | None,
    library: Path | None,
    as_json: bool,
    **opening: Any,
) -> int:
    """Measure how good searches are on the photos of FOLDER.

    The first folder below it is a photo's class: do its nearest neighbours share it? Without any labels:
    does a changed photo (cropped, turned, recoloured, recompressed, ...) find its original, and from which
    score on are two pictures the same photo? All with 95 % intervals, and beside raw pixels, colours, a
    perceptual hash and the same network untrained. The library is not written to.

    \b
    vitmae-search evaluate ~/Sorted
    vitmae-search evaluate ~/Pictures --instances 300 --plot evaluation.png
    vitmae-search evaluate photos/labels.csv --model facebook/vit-mae-base --output base.md
    """
    from vitmae_search.cli.progress import show_progress
    from vitmae_search.library.evaluation import calibrate_projection, save_plot

    projection = str(opening["projection"])
    if calibrate and projection in ("auto", "none"):
        raise click.UsageError("--calibrate writes into a projection's file; name it with --projection FILE")
    if labels is None and not os.path.isdir(folder):
        labels, folder = folder, os.path.dirname(os.path.abspath(folder))
    try:
        with open_library(library, **opening) as opened, show_progress() as on_progress:
            found = opened.evaluate(
                folder,
                labels=labels,
                instances=instances,
                limit=limit,
                seed=seed,
                batch_size=batch_size,
                variants=not no_variants,
                on_progress=on_progress,
            )
    except KeyboardInterrupt:
        click.echo("interrupted; an evaluation keeps nothing, and begins anew", err=True)
        return 130
    if calibrate:
        calibrate_projection(projection, found)
    _write(output, lambda path: path.write_text(found.markdown(), encoding="utf-8"))
    _write(plot, lambda path: save_plot(found, path))
    if as_json:
        print_json(found.as_json())
    else:
        _print(found)
    return 0


def _write(path: Path | None, write: Callable[[Path], object]) -> None:
    if path is not None:
        try:
            write(path)
        except OSError as error:
            raise StorageError(
                f"{display_path(path)} cannot be written: {error.strerror or error}"
            ) from error


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _print(found: Evaluation) -> None:
    """Print tables on a terminal, Markdown to anything else."""
    if not _is_terminal():
        click.echo(found.markdown(), nl=False)
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    console.print(found.summary)
    for note in found.notes:
        console.print(f"note: {note}")
    for table in found.tables():
        shown = Table(*table.header, title=table.title)
        shown.columns[0].no_wrap = True
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    for failure in found.failures[:SHOWN_FAILURES]:
        console.print(f"failed: {display_path(failure.path)}: {failure.reason}")
    if len(found.failures) > SHOWN_FAILURES:
        console.print(f"... and {len(found.failures) - SHOWN_FAILURES} more; --json lists them all")
