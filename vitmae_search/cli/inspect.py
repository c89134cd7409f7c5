"""The command `vitmae-search inspect`."""

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
)
from vitmae_search.errors import display_path

if TYPE_CHECKING:
    from vitmae_search.records import Inspection


def read_patch(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """A patch, as row and column from 0: "2,5".

    Args:
        context: click's.
        option: click's.
        value: The text; None where there is none.
    """
    if value is None:
        return None
    row, comma, column = value.partition(",")
    if not (comma and row.strip().isdecimal() and column.strip().isdecimal()):
        raise click.BadParameter(f"{value!r} is not a row and a column, such as 2,5", context, option)
    return int(row), int(column)


@click.command("inspect")
@click.argument("images", metavar="IMAGE...", type=click.Path(), nargs=-1, required=True)
@click.option(
    "--show",
    type=click.Choice(["attention", "colors", "layers"]),
    default="attention",
    show_default=True,
    help="attention: what a patch attends to. colors: patches that the model sees alike have like colors, in "
    "all IMAGEs. layers: how much each layer changes.",
)
@click.option(
    "--layer", type=click.IntRange(0), help="[default: all: the roll-out, or some of them as colors]"
)
@click.option(
    "--patch",
    metavar="ROW,COLUMN",
    callback=read_patch,
    help="Whose attention, counted from 0.  [default: the CLS token's]",
)
@figure_option("inspection.png")
@model_option
@device_options
@library_option
@json_option
def command(
    images: tuple[str, ...],
    show: str,
    layer: int | None,
    patch: tuple[int, int] | None,
    output: str,
    model: str | None,
    device: str | None,
    precision: str,
    library: Path | None,
    as_json: bool,
) -> None:
    """Show what the model sees in IMAGE: attention, or features as colors.

    Nothing is hidden from the model. --json gives the attention, the colors, or the changes as numbers.
    """
    from vitmae_search.inspection import figures

    if show != "colors" and len(images) > 1:
        raise click.UsageError(f"--show {show} takes one IMAGE.")
    if (patch is not None and show != "attention") or (layer is not None and show == "layers"):
        raise click.UsageError(f"--show {show} takes no --{'layer' if patch is None else 'patch'}.")
    with open_library(library, model=model, device=device, precision=precision) as opened:
        pictures = [opened.inspect(image) for image in images]
    depth = len(pictures[0].attention)
    if show == "attention":
        numbers: dict[str, object] = {"attention": _attention(pictures[0], layer, patch)}
        drawn = figures.attention_figure(pictures[0], layer, patch or "cls")
    elif show == "colors":
        layers = [layer] if layer is not None else sorted({depth // 4, depth // 2, 3 * depth // 4, depth})
        from vitmae_search.inspection import feature_colors

        colors = [[each.tolist() for each in feature_colors(pictures, number)] for number in layers]
        numbers = {"layers": layers, "colors": colors}
        drawn = figures.features_figure(pictures, layers)
    else:
        from vitmae_search.inspection import layer_changes

        numbers = {"changes": layer_changes(pictures[0]).tolist()}
        drawn = figures.layers_figure(pictures[0])
    figures.save_figure(drawn, output)
    rows, columns = pictures[0].grid
    if as_json:
        print_json({"grid": [rows, columns], "depth": depth, **numbers, "output": os.path.abspath(output)})
        return
    click.echo(f"{columns} × {rows} patches, {depth} layers: {display_path(output)}")


def _attention(made: Inspection, layer: int | None, patch: tuple[int, int] | None) -> list[list[float]]:
    """The map that the figure's first panel shows."""
    from vitmae_search.inspection import attention_map, mean_attention, rollout

    flow = rollout(made) if layer is None else mean_attention(made, layer)
    values: list[list[float]] = attention_map(made, flow, patch or "cls").tolist()
    return values
