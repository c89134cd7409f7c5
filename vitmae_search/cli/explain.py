"""The command `vitmae-search explain`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from vitmae_search.cli.common import (
    device_options,
    figure_option,
    json_option,
    library_option,
    model_option,
    open_library,
    print_json,
)
from vitmae_search.errors import display_path


@click.command("explain")
@click.argument("query", type=click.Path())
@click.argument("hit", type=click.Path())
@click.option("--layer", type=click.IntRange(0), help="Whose patches are compared.  [default: the last]")
@figure_option("explanation.png")
@click.option(
    "--space",
    type=click.IntRange(1),
    metavar="ID",
    help="Whose score it is.  [default: the current space's]",
)
@model_option
@device_options
@library_option
@json_option
def command(
    query: str,
    hit: str,
    layer: int | None,
    output: str,
    space: int | None,
    model: str | None,
    device: str | None,
    precision: str,
    library: Path | None,
    as_json: bool,
) -> None:
    """Show why HIT is found for QUERY: patches that correspond, and what each adds to the score.

    With --model the score is that of another model, with which nothing need be indexed. The patches'
    shares and what the projection adds by itself sum up to the score exactly.
    """
    from vitmae_search.inspection.figures import match_figure, save_figure
    from vitmae_search.library.json_forms import explanation_json

    if space is not None and model is not None:
        raise click.UsageError("--space has its own model: leave --model out.")
    with open_library(library, device=device, precision=precision) as opened:
        found = opened.explain(query, hit, space=space, layer=layer, model=model)
    save_figure(match_figure(found), output)
    if as_json:
        print_json({**explanation_json(found), "output": os.path.abspath(output)})
        return
    click.echo(f"score {found.score:.4f}, {len(found.pairs)} corresponding patches: {display_path(output)}")
