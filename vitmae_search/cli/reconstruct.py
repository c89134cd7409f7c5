"""The command `vitmae-search reconstruct`."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vitmae_search.cli.common import (
    device_options,
    json_option,
    library_option,
    model_option,
    open_library,
    print_json,
)
from vitmae_search.errors import display_path

if TYPE_CHECKING:
    from vitmae_search.records import Reconstruction

_MAX_NAME_BYTES = 233
"""Of 255, as a temporary file beside it has a longer name."""


@click.command("reconstruct")
@click.argument("image", type=click.Path())
@click.option(
    "-o",
    "output",
    type=click.Path(dir_okay=False),
    metavar="OUT.png",
    help="[default: IMAGE-reconstruction.png, here]",
)
@click.option(
    "--mask-ratio",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.75,
    show_default=True,
    help="The share of patches to hide; --show sweep tries all.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Which patches are hidden.",
)
@click.option(
    "--soften/--no-soften",
    default=True,
    show_default=True,
    help="In the completed photo, smooth the steps between neighbouring guesses.",
)
@click.option(
    "--pattern",
    type=click.Choice(["random", "block", "grid"]),
    default="random",
    show_default=True,
    help="How the hidden patches lie.",
)
@click.option(
    "--show",
    type=click.Choice(["sheet", "sweep", "seeds", "importance"]),
    default="sheet",
    show_default=True,
    help="sheet: one reconstruction. sweep: an animation with ever more patches hidden (.gif), or the loss "
    "as a curve. seeds: the mean and the deviation over 16 seeds. importance: which visible patches matter.",
)
@model_option
@device_options
@library_option
@json_option
def command(
    image: str,
    output: str | None,
    mask_ratio: float,
    seed: int,
    soften: bool,
    pattern: str,
    show: str,
    model: str | None,
    device: str | None,
    precision: str,
    library: Path | None,
    as_json: bool,
) -> None:
    """Hide patches of IMAGE and let the model fill them in.

    Writes one picture: the photo with the model's guesses in place, large, and beside it what the model saw,
    the original, its guess of every patch, and the error of each.
    """
    from vitmae_search.inspection.masks import pattern_mask
    from vitmae_search.library import save_reconstruction

    output = output or _output_name(image, ".gif" if show == "sweep" else ".png")
    with open_library(library, model=model, device=device, precision=precision) as opened:
        made = opened.reconstruct(image, mask_ratio=mask_ratio, seed=seed)
        if pattern != "random":
            made = opened.reconstruct(image, mask=pattern_mask(pattern, made.mask.shape, mask_ratio, seed))
        many = None
        if show != "sheet":
            many = _save_many(partial(opened.reconstruct, image), made, show, pattern, seed, output)
    if many is not None:
        if as_json:
            print_json({**many, "output": os.path.abspath(output)})
        else:
            click.echo(f"{show}: {display_path(output)}")
        return
    save_reconstruction(made, output, soften=soften)
    masked = int(made.mask.sum())
    if as_json:
        print_json(
            {
                "loss": made.loss,
                "mask_ratio": made.mask_ratio,
                "masked_patches": masked,
                "patches": int(made.mask.size),
                "seams_softened": soften,
                "output": os.path.abspath(output),
            }
        )
        return
    loss = "nothing was hidden" if made.loss is None else f"loss {made.loss:.4f}"
    click.echo(f"{masked} of {made.mask.size} patches hidden, {loss}: {display_path(output)}")


def _save_many(
    reconstruct: Callable[..., Reconstruction],
    made: Reconstruction,
    show: str,
    pattern: str,
    seed: int,
    output: str,
) -> dict[str, object]:
    """Write what several reconstructions say, and return the numbers."""
    from vitmae_search.inspection import figures, series

    reconstruct = series.in_pattern(reconstruct, pattern, made.mask.shape)
    if show == "sweep":
        sweep = series.ratio_sweep(reconstruct, seed=seed)
        if output.lower().endswith(".gif"):
            with figures.saved(output) as stream:
                series.save_animation(series.animation(sweep), stream)
        else:
            figures.save_figure(figures.sweep_figure(sweep), output)
        return {"ratios": [each.mask_ratio for each in sweep], "losses": [each.loss for each in sweep]}
    if show == "seeds":
        found = series.seed_statistics(reconstruct, made.mask_ratio, range(seed, seed + series.SEEDS))
        figures.save_figure(figures.seeds_figure(found), output)
        return {"seeds": series.SEEDS, "deviation": float(found.deviation.mean())}
    importance = series.patch_importance(reconstruct, made.mask)
    figures.save_figure(figures.importance_figure(made, importance), output)
    rows = [[None if value != value else value for value in row] for row in importance.tolist()]
    return {"importance": rows}


def _output_name(image: str, suffix: str) -> str:
    """The name of the picture that is written; a long one is cut to what file systems allow, 255 bytes."""
    ending = f"-reconstruction{suffix}"
    stem = os.fsencode(os.path.splitext(os.path.basename(image))[0])
    if len(stem) + len(ending) > _MAX_NAME_BYTES:
        stem = stem[: _MAX_NAME_BYTES - len(ending)].decode("utf-8", "ignore").encode()
    return os.fsdecode(stem) + ending
