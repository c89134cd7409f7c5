"""The command `vitmae-search finetune`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from vitmae_search.bundled import DEFAULT_MODEL
from vitmae_search.cli.common import PathOnDisk, json_option, print_json
from vitmae_search.cli.training_options import (
    POSITIVE,
    SHARE,
    device_option,
    folder_argument,
    given_options,
    save_minutes_option,
    seed_option,
    stored_side_option,
    threads_option,
)
from vitmae_search.errors import display_path


@click.command("finetune")
@folder_argument
@click.option(
    "-o",
    "--output",
    type=PathOnDisk(file_okay=False, path_type=Path),
    default=Path("runs/finetune"),
    show_default=True,
    help="The run's folder, which is also the model. A run that is there goes on.",
)
@click.option(
    "--labels",
    metavar="FILE.CSV",
    type=PathOnDisk(exists=True, dir_okay=False),
    help="Columns path (relative to FOLDER) and label.  [default: the first folder is the class]",
)
@click.option(
    "--val",
    metavar="FOLDER",
    type=PathOnDisk(exists=True, file_okay=False),
    help="Photos to validate on, in folders of the same classes.  [default: held out of FOLDER]",
)
@click.option(
    "--val-share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    help="Share of each class that is held out.",
)
@click.option(
    "--model",
    metavar="NAME|PATH|HUB-ID",
    help=f"A ViTMAE, or a classifier to go on from.  [default: {DEFAULT_MODEL}]",
)
@click.option(
    "--mode",
    type=click.Choice(["probe", "full"]),
    default="probe",
    show_default=True,
    help="A linear map of the frozen encoder's features, or all weights.",
)
@click.option(
    "--pooling",
    type=click.Choice(["cls", "mean"]),
    default="cls",
    show_default=True,
    help="What the classifier sees; transformers reads cls alone.",
)
@click.option("--epochs", type=POSITIVE, help="Passes over the photos.  [default: probe 90, full 100]")
@click.option("--batch-size", type=click.IntRange(2, 65536), help="[default: probe 256, full 128]")
@click.option(
    "--learning-rate",
    type=POSITIVE,
    help="For 256 photos; it grows with the batch.  [default: probe 0.1, full 5e-4]",
)
@click.option("--warmup", type=SHARE, help="Share of the training.  [default: probe 0.1, full 0.05]")
@click.option("--weight-decay", type=click.FloatRange(0), help="[default: probe 0, full 0.05]")
@click.option("--label-smoothing", type=SHARE, help="[default: probe 0, full 0.1]")
@click.option(
    "--layer-decay",
    type=click.FloatRange(0, 1, min_open=True),
    help="Full: a layer's rate as a share of that above it.  [default: 0.75]",
)
@click.option("--drop-path", type=SHARE, help="Full: greatest rate of branches left out.  [default: 0.1]")
@click.option("--mixup", type=click.FloatRange(0), help="Full: α, 0 for none.  [default: 0.8]")
@click.option("--cutmix", type=click.FloatRange(0), help="Full: α, 0 for none.  [default: 1]")
@click.option("--clip-norm", type=click.FloatRange(0), help="Full: greatest gradient norm, 0 for any.")
@click.option(
    "--views", type=click.IntRange(1, 64), help="Probe: whole, mirrored, then random crops.  [default: 2]"
)
@click.option(
    "--crop-scale",
    type=(float, float),
    default=(0.08, 1.0),
    show_default=True,
    help="Least and greatest area of a crop.",
)
@click.option("--flip/--no-flip", default=True, show_default=True, help="Mirror half of the photos.")
@stored_side_option
@seed_option
@click.option(
    "--precision",
    type=click.Choice(["auto", "bf16", "fp32"]),
    help="Of the encoder in training.  [default: probe fp32, full auto]",
)
@click.option("--attention", type=click.Choice(["auto", "eager", "sdpa"]), default="auto", show_default=True)
@device_option
@threads_option
@save_minutes_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    folder: str,
    output: Path,
    labels: str | None,
    val: str | None,
    model: str | None,
    as_json: bool,
    **chosen: Any,
) -> int:
    """Train a classifier on the photos under FOLDER, whose first folders are their classes.

    The output folder becomes the model of the best epoch, for `transformers` and, as an embedder, for
    `index --model`; with log.jsonl, loss.png, accuracy.png and confusion.png. Ctrl-C keeps what was
    learned, and the same command goes on from it exactly. Options that were left out are then those that
    the run began with.

    \b
    vitmae-search finetune ~/Pictures/sorted
    vitmae-search finetune ~/Pictures --labels labels.csv --mode full -o runs/mine
    """
    from vitmae_search.cli.stop_signal import StopOnSignal
    from vitmae_search.cli.training_progress import training_progress
    from vitmae_search.training import FinetuneHooks, finetune

    given = given_options(ctx)
    with training_progress() as progress, StopOnSignal("saving a checkpoint after this step") as stop:
        report = finetune(
            folder,
            output,
            labels=labels,
            val=val,
            model=model,
            options={name: value for name, value in chosen.items() if name in given},
            hooks=FinetuneHooks(progress.packed, progress.encoded, progress.tuned, stop.requested),
        )
    if as_json:
        print_json(asdict(report))
    else:
        _print_report(asdict(report))
    return 130 if report.interrupted else 0


def _print_report(report: dict[str, Any]) -> None:
    click.echo(
        f"{report['epochs']:.2f} epochs of {report['photos']} photos in {report['classes']} classes "
        f"in {report['seconds'] / 60:.1f} minutes"
    )
    if report["accuracy"] is not None:
        click.echo(
            f"accuracy {report['accuracy']:.1%} on {report['validation_photos']} photos held out "
            f"(epoch {report['best_epoch']:g}, the best one)"
        )
    _print_left_out(report)
    if report["accuracy"] is not None:
        click.echo(f"model: {display_path(report['output'])}")
    if report["pooling"] == "mean":
        click.echo("transformers would not read its mean-pooled head; it reads its encoder", err=True)
    if report["interrupted"]:
        click.echo("interrupted; the same command goes on from the checkpoint", err=True)


def _print_left_out(report: dict[str, Any]) -> None:
    if report["failed"]:
        click.echo(f"{report['failed']} photos could not be read and were left out")
    if report["unlabelled"]:
        click.echo(f"{report['unlabelled']} photos lie in no class's folder and were left out")
    if report["not_validated"]:
        names = ", ".join(report["not_validated"][:5])
        more = len(report["not_validated"]) - 5
        rest = f" and {more} more" if more > 0 else ""
        click.echo(f"no photo was held out of {names}{rest}: the accuracy does not speak for them")
