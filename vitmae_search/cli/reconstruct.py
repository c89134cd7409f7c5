"""The command `vitmae-search reconstruct`."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vitmae_search.cli.common import (
    PathOnDisk,
    device_options,
    json_option,
    library_option,
    model_option,
    open_library,
    print_json,
)
from vitmae_search.cli.training_options import given_options
from vitmae_search.errors import display_path
from vitmae_search.mask_patterns import PATTERNS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vitmae_search.inspection.masks import Mask
    from vitmae_search.library import Library
    from vitmae_search.records import Reconstruction

_MAX_NAME_BYTES = 233
"""Of 255, as a temporary file beside it has a longer name."""


def _box(
    ctx: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, int, int, int] | None:
    if value is None:
        return None
    numbers = value.split(",")
    if len(numbers) != 4 or not all(text.strip().isdecimal() for text in numbers):
        raise click.BadParameter(
            f"{value!r} is not the first row and column and the last ones, such as 2,2,5,4"
        )
    top, left, bottom, right = map(int, numbers)
    if bottom < top or right < left:
        raise click.BadParameter(f"{value!r} ends before it begins.")
    return top, left, bottom, right


@click.command("reconstruct")
@click.argument("image", type=click.Path())
@click.option(
    "-o",
    "output",
    type=PathOnDisk(dir_okay=False),
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
    type=click.Choice(PATTERNS),
    default=PATTERNS[0],
    show_default=True,
    help="How the hidden patches lie.",
)
@click.option(
    "--mask",
    metavar="MASK",
    help="Hide these patches, in place of a pattern: 8x8-…, as --json and the page's address have it. "
    "Another photo's, or another model's, will do.",
)
@click.option(
    "--only",
    metavar="TOP,LEFT,BOTTOM,RIGHT",
    callback=_box,
    help="Hide all but this box of patches, in place of a pattern: rows and columns from 0, both ends "
    "included.",
)
@click.option(
    "--beside",
    metavar="MODEL",
    help="Another model, as for --model, whose guesses with the same patches hidden are drawn below.",
)
@click.option(
    "--show",
    type=click.Choice(["sheet", "sweep", "seeds", "importance", "again"]),
    default="sheet",
    show_default=True,
    help="sheet: one reconstruction. sweep: an animation with ever more patches hidden (.gif), or the loss "
    "as a curve. seeds: the mean and the deviation over 16 seeds. importance: which visible patches "
    "matter. "
    "again: what was made of the picture is given to the model again, 8 times (.gif or .png). All of them "
    "take --mask and --only.",
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
    mask: str | None,
    only: tuple[int, int, int, int] | None,
    beside: str | None,
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
    _check_together(mask, only, beside, show)
    if beside is not None and beside == model:
        raise click.UsageError(f"--beside names the same model as --model, {beside}: name another one.")
    output = output or _output_name(image, ".gif" if show == "sweep" else ".png")
    with open_library(library, model=model, device=device, precision=precision) as opened:
        made = opened.reconstruct(image, mask_ratio=mask_ratio, seed=seed)
        chosen = _chosen_mask(made, mask, only)
        if chosen is not None:
            made = opened.reconstruct(image, mask=chosen)
        elif pattern != PATTERNS[0]:
            patterned = _in_pattern(partial(opened.reconstruct, image), pattern, made)
            made = patterned(mask_ratio=mask_ratio, seed=seed)
        many: dict[str, object] = {}
        both = {model or "the library's model": made}
        if show != "sheet":
            many = _save_many(opened, image, made, (show, pattern, seed, mask_ratio, output), chosen)
        elif beside is not None:
            both[beside] = _by_another(opened, image, made, beside)
    if many:
        _report({**many, "output": os.path.abspath(output)}, [f"{show}: {display_path(output)}"], as_json)
        return
    _save_sheet(both, output, soften)
    numbers = {**_numbers(made), "seams_softened": soften, "output": os.path.abspath(output)}
    if beside is not None:
        numbers["beside"] = {"model": beside, **_numbers(both[beside])}
    _report(numbers, _lines(both, output), as_json)


def _check_together(
    mask: str | None, only: tuple[int, int, int, int] | None, beside: str | None, show: str
) -> None:
    if mask is not None and only is not None:
        raise click.UsageError("--mask and --only both say what is hidden: give one of them.")
    if (mask is not None or only is not None) and "pattern" in given_options(click.get_current_context()):
        raise click.UsageError(
            "--pattern says what is hidden, and so do --mask and --only: give one of them."
        )
    if beside is not None and show != "sheet":
        raise click.UsageError(f"--beside goes with --show sheet, not with {show}.")


def _report(numbers: dict[str, object], lines: list[str], as_json: bool) -> None:
    if as_json:
        print_json(numbers)
    else:
        click.echo("\n".join(lines))


def _lines(both: dict[str, Reconstruction], output: str) -> list[str]:
    lines = []
    for name, made in both.items():
        loss = "nothing was hidden" if made.loss is None else f"loss {made.loss:.4f}"
        by = f", by {display_path(name)}" if len(both) > 1 else ""
        lines.append(
            f"{int(made.mask.sum())} of {made.mask.size} patches hidden, {loss}{by}: {display_path(output)}"
        )
        lines.append(made.statistics_text)
    return lines


def _save_sheet(both: dict[str, Reconstruction], output: str, soften: bool) -> None:
    from vitmae_search.library import save_reconstruction

    save_reconstruction(both if len(both) > 1 else next(iter(both.values())), output, soften=soften)


def _numbers(made: Reconstruction) -> dict[str, object]:
    from vitmae_search.inspection.masks import mask_text
    from vitmae_search.library.json_forms import reconstruction_summary

    return {
        **reconstruction_summary(made),
        "masked_patches": int(made.mask.sum()),
        "patches": int(made.mask.size),
        "mask": mask_text(made.mask),
    }


def _chosen_mask(
    made: Reconstruction, text: str | None, only: tuple[int, int, int, int] | None
) -> Mask | None:
    """The mask that --mask or --only says, in the patches of the model that made a reconstruction."""
    from vitmae_search.inspection.masks import all_but_box, fit_mask, read_mask

    if text is not None:
        return fit_mask(read_mask(text), made.mask.shape)
    if only is None:
        return None
    top, left, bottom, right = only
    rows, columns = made.mask.shape
    if bottom >= rows or right >= columns:
        raise click.BadParameter(
            f"The box {top},{left},{bottom},{right} is not within this model's {rows} × {columns} patches, "
            f"whose last one is {rows - 1},{columns - 1}.",
            param_hint="--only",
        )
    return all_but_box(made.mask.shape, (top, left, bottom + 1, right + 1))


def _in_pattern(
    reconstruct: Callable[..., Reconstruction], pattern: str, made: Reconstruction
) -> Callable[..., Reconstruction]:
    from vitmae_search.inspection import series

    return series.in_pattern(reconstruct, pattern, made.mask.shape)


def _by_another(opened: Library, image: str, made: Reconstruction, model: str) -> Reconstruction:
    from vitmae_search.inspection import series

    return series.with_the_same_mask(partial(opened.reconstruct, image, model=model), made)


def _save_many(
    opened: Library,
    image: str,
    made: Reconstruction,
    asked: tuple[str, str, int, float, str],
    mask: Mask | None,
) -> dict[str, object]:
    """Write what several reconstructions say, and return the numbers."""
    from PIL import Image

    from vitmae_search.inspection import figures, series

    show, pattern, seed, ratio, output = asked
    reconstruct = _in_pattern(partial(opened.reconstruct, image), pattern, made)
    if show == "sweep":
        sweep = series.ratio_sweep(reconstruct, seed=seed, mask=mask)
        _save_series(sweep, output, figures.sweep_figure)
        return {"ratios": [each.mask_ratio for each in sweep], "losses": [each.loss for each in sweep]}
    if show == "again":
        picture = Image.fromarray(made.original)
        images = series.images_in_pattern(opened.reconstruct, pattern, made.mask.shape)
        again = series.iterate(images, picture, series.STEPS, ratio=ratio, seed=seed, mask=mask)
        _save_series(again, output, figures.iterations_figure)
        return {"losses": [each.loss for each in again]}
    if show == "seeds":
        share = ratio if mask is None else series.MORE_HIDDEN
        found = series.seed_statistics(reconstruct, share, range(seed, seed + series.SEEDS), mask)
        figures.save_figure(figures.seeds_figure(found), output)
        return {"seeds": series.SEEDS, "deviation": float(found.deviation.mean())}
    importance = series.patch_importance(reconstruct, made.mask)
    figures.save_figure(figures.importance_figure(made, importance), output)
    rows = [[None if value != value else value for value in row] for row in importance.tolist()]
    return {"importance": rows}


def _save_series(
    made: list[Reconstruction], output: str, draw: Callable[[list[Reconstruction]], Figure]
) -> None:
    """Write an animation, or a figure, whichever the file's name says."""
    from vitmae_search.inspection import figures, series

    if output.lower().endswith(".gif"):
        animation = series.animation_gif(made)
        with figures.saved(output) as stream:
            stream.write(animation)
    else:
        figures.save_figure(draw(made), output)


def _output_name(image: str, suffix: str) -> str:
    """The name of the picture that is written; a long one is cut to what file systems allow, 255 bytes."""
    ending = f"-reconstruction{suffix}"
    stem = os.fsencode(os.path.splitext(os.path.basename(image))[0])
    if len(stem) + len(ending) > _MAX_NAME_BYTES:
        stem = stem[: _MAX_NAME_BYTES - len(ending)].decode("utf-8", "ignore").encode()
    return os.fsdecode(stem) + ending
