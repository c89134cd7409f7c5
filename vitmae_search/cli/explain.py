"""The command `vitmae-search explain`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vitmae_search.cli.common import (
    device_options,
    figure_option,
    json_option,
    library_option,
    model_option,
    open_library,
    print_json,
    read_part,
)
from vitmae_search.errors import display_path

if TYPE_CHECKING:
    from vitmae_search.records import MatchExplanation, RegionExplanation


@click.command("explain")
@click.argument("query", type=click.Path())
@click.argument("hit", type=click.Path())
@click.option("--layer", type=click.IntRange(0), help="Whose patches are compared.  [default: the last]")
@click.option(
    "--part",
    metavar="L,T,W,H",
    callback=read_part,
    help="Explain a search by this part of QUERY, as of `search --part`. HIT is a photo of the library.",
)
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
    part: tuple[float, ...] | None,
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
    shares and what the projection adds by itself sum up to the score exactly. So do those of a search by
    a part, and what is taken away for the other photos that were looked through.
    """
    from vitmae_search.inspection.figures import match_figure, save_figure
    from vitmae_search.library.json_forms import explanation_json

    if space is not None and model is not None:
        raise click.UsageError("--space has its own model: leave --model out.")
    if part is not None and (layer is not None or model is not None):
        raise click.UsageError("--part takes neither --layer nor --model.")
    with open_library(library, device=device, precision=precision) as opened:
        found: MatchExplanation | RegionExplanation = (
            opened.explain(query, hit, space=space, layer=layer, model=model)
            if part is None
            else opened.explain_region(query, part, hit, space=space)
        )
    save_figure(match_figure(found), output)
    if as_json:
        print_json({**explanation_json(found), "output": os.path.abspath(output)})
        return
    click.echo(f"score {found.score:.4f}, {len(found.pairs)} corresponding patches: {display_path(output)}")
