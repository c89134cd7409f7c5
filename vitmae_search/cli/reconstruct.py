"""The command `vitmae-search reconstruct`."""

from __future__ import annotations

import os
from pathlib import Path

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
    help="The share of patches to hide.",
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
    from vitmae_search.library import save_reconstruction

    output = output or _output_name(image)
    with open_library(library, model=model, device=device, precision=precision) as opened:
        made = opened.reconstruct(image, mask_ratio=mask_ratio, seed=seed)
    save_reconstruction(made, output, soften=soften)
    masked = int(made.mask.sum())
    if as_json:
        print_json(
            {
                "loss": made.loss,
                "mask_ratio": mask_ratio,
                "masked_patches": masked,
                "patches": int(made.mask.size),
                "seams_softened": soften,
                "output": os.path.abspath(output),
            }
        )
        return
    loss = "nothing was hidden" if made.loss is None else f"loss {made.loss:.4f}"
    click.echo(f"{masked} of {made.mask.size} patches hidden, {loss}: {display_path(output)}")


def _output_name(image: str) -> str:
    """The name of the picture that is written; a long one is cut to what file systems allow, 255 bytes."""
    ending = "-reconstruction.png"
    stem = os.fsencode(os.path.splitext(os.path.basename(image))[0])
    if len(stem) + len(ending) > _MAX_NAME_BYTES:
        stem = stem[: _MAX_NAME_BYTES - len(ending)].decode("utf-8", "ignore").encode()
    return os.fsdecode(stem) + ending
