"""The command `vitmae-search pretrain`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitmae_search.cli.common import PathOnDisk, json_option, print_json
from vitmae_search.cli.training_options import (
    POSITIVE,
    SHARE,
    device_option,
    folder_argument,
    given_options,
    run_options,
    save_minutes_option,
    seed_option,
    stored_side_option,
    threads_option,
)
from vitmae_search.errors import display_path

if TYPE_CHECKING:
    from vitmae_search.training import PretrainReport

_MODEL_FIELDS = ("image_size", "patch_size", "mask_ratio", "norm_pix_loss")
_DECODER_SIZES = ("decoder_layers", "decoder_width")


@click.command("pretrain")
@folder_argument
@click.option(
    "-o",
    "--output",
    type=PathOnDisk(file_okay=False, path_type=Path),
    default=Path("runs/pretrain"),
    show_default=True,
    help="The run's folder, which is also the checkpoint. A run that is there goes on.",
)
@click.option(
    "--model",
    metavar="tiny|small|base|large|CONFIG.JSON",
    default="tiny",
    show_default=True,
    help="The architecture.",
)
@click.option(
    "--init",
    metavar="MODEL",
    help="Start from this checkpoint's weights, in its architecture: a folder, a bundled name, a hub id.",
)
@click.option(
    "--freeze-encoder", is_flag=True, help="With --init: train the decoder alone, so that no vector changes."
)
@click.option(
    "--decoder-layers",
    type=click.IntRange(1),
    help="With --init, more layers than the checkpoint's come after these.  [default: the architecture's]",
)
@click.option(
    "--decoder-width",
    type=click.IntRange(32),
    help="A multiple of 32. With --init, another width makes a new decoder.  [default: the architecture's]",
)
@click.option("--image-size", type=int, help="Side in pixels.  [default: the architecture's]")
@click.option("--patch-size", type=int, help="Side in pixels.  [default: the architecture's]")
@click.option("--mask-ratio", type=SHARE, help="Share of patches to remove.  [default: 0.75]")
@click.option(
    "--mask-ratios",
    metavar="LEAST GREATEST",
    type=(float, float),
    help="Draw each batch's mask ratio between these.  [default: always --mask-ratio]",
)
@click.option(
    "--norm-pix-loss/--no-norm-pix-loss",
    default=None,
    help="Learn pixels normalised patch by patch.  [default: yes]",
)
@click.option(
    "--contrastive",
    metavar="WEIGHT",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Learn also that two views of a photo are alike, and unlike other photos: better searches.",
)
@click.option(
    "--temperature",
    type=POSITIVE,
    default=0.2,
    show_default=True,
    help="Of the contrastive loss: lower looks more at the photos that are most alike.",
)
@click.option(
    "--reconstruction",
    metavar="WEIGHT",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Of the hidden patches' error, beside a contrastive loss.",
)
@click.option("--epochs", type=POSITIVE, default=100.0, show_default=True, help="Passes over the photos.")
@click.option(
    "--max-minutes",
    type=POSITIVE,
    help="End by this much training time if that comes first; the schedule follows.",
)
@click.option("--batch-size", type=click.IntRange(1, 65536), default=256, show_default=True)
@click.option(
    "--learning-rate",
    type=POSITIVE,
    default=1.5e-4,
    show_default=True,
    help="For 256 photos; it grows with the batch.",
)
@click.option(
    "--warmup", type=SHARE, default=0.05, show_default=True, help="Share of the training with a rising rate."
)
@click.option("--weight-decay", type=click.FloatRange(0), default=0.05, show_default=True)
@click.option(
    "--clip-norm",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Greatest gradient norm; 0 does not clip.",
)
@click.option(
    "--accumulate",
    metavar="ROUNDS",
    type=click.IntRange(1, 4096),
    default=1,
    show_default=True,
    help="Compute each batch in this many rounds, for less memory; the result is the same.",
)
@click.option(
    "--ema",
    metavar="DECAY",
    type=SHARE,
    default=0.0,
    show_default=True,
    help="Save a running mean of the weights, 0.999 for instance; 0 saves them as they are.",
)
@click.option(
    "--crop-scale",
    type=(float, float),
    default=(0.2, 1.0),
    show_default=True,
    help="Least and greatest area of a crop.",
)
@click.option("--flip/--no-flip", default=True, show_default=True, help="Mirror half of the crops.")
@stored_side_option
@seed_option
@click.option(
    "--precision",
    type=click.Choice(["auto", "bf16", "fp32"]),
    default="auto",
    show_default=True,
    help="auto: bf16 where the hardware multiplies in it, else fp32.",
)
@click.option(
    "--attention",
    type=click.Choice(["auto", "eager", "sdpa"]),
    default="auto",
    show_default=True,
    help="auto: sdpa, but eager in bf16 on a CPU, which trains faster there.",
)
@device_option
@click.option(
    "--checkpoint-activations",
    is_flag=True,
    help="Compute activations again for the gradient: less memory, a third more time.",
)
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=None,
    help="Compile the layers, in about a minute, for faster steps; needs a C++ compiler on a CPU.  "
    "[default: on a GPU, if torch can]",
)
@click.option(
    "--cache",
    type=click.Choice(["auto", "device", "host", "none"]),
    default="auto",
    show_default=True,
    help="Keep the packed photos in the device's memory, or the host's; none: decode them as they come.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 256),
    default=2,
    show_default=True,
    help="Processes that decode ahead without a cache.",
)
@threads_option
@click.option(
    "--replicas",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Share each batch among threads of one core each: faster on a busy CPU.",
)
@save_minutes_option
@click.option(
    "--log-every", metavar="STEPS", type=click.IntRange(1), default=20, show_default=True, help="In the log."
)
@click.option(
    "--film",
    type=click.Choice(["log", "even", "none"]),
    default="log",
    show_default=True,
    help="Keep a film strip: what the model makes of the same four photos after 1, 2, 4, 8, … steps (log), "
    "or after each sixteenth of the training (even). `vitmae-search film` writes it.",
)
@click.option(
    "--film-photo",
    "film_photos",
    type=PathOnDisk(exists=True, dir_okay=False, resolve_path=True),
    metavar="FILE",
    multiple=True,
    help="A photo of yours for the film strip; up to four.",
)
@run_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    folder: str,
    output: Path,
    model: str,
    library: Path | None,
    run_key: str | None,
    as_json: bool,
    **chosen: Any,
) -> int:
    """Pretrain a masked autoencoder on every photo under FOLDER.

    The output folder becomes a checkpoint (`--model runs/pretrain` for the other commands), with the
    loss as log.jsonl and loss.png, and reconstructions.png. Ctrl-C keeps a checkpoint, and the same
    command goes on from it exactly. Options that were left out are then those that the run began with.

    \b
    vitmae-search pretrain ~/Pictures --epochs 50
    vitmae-search pretrain ~/Pictures --init vitmae-tiny-patch8-64 --epochs 20
    vitmae-search pretrain ~/Pictures --init vitmae-tiny-patch8-64 --freeze-encoder --no-norm-pix-loss
    vitmae-search pretrain ~/Pictures --max-minutes 60 --learning-rate 1e-3 -o runs/hour
    """
    from vitmae_search.cli.stop_signal import StopOnSignal
    from vitmae_search.cli.training_progress import training_progress
    from vitmae_search.library.jobs import recorded_job

    given = given_options(ctx)
    architecture_options = {*_MODEL_FIELDS, *_DECODER_SIZES}
    if chosen["init"] is not None:
        _refuse_architecture(given)

    def run(stop: Callable[[], bool]) -> PretrainReport:
        from vitmae_search.training import pretrain  # loads torch, after the run is recorded in the library

        return pretrain(
            folder,
            output,
            model=_architecture(model, chosen, given),
            options={name: v for name, v in chosen.items() if name in given - architecture_options},
            on_packed=progress.packed,
            on_compiled=progress.compiled,
            on_progress=progress.trained,
            stop=stop,
        )

    arguments = {"folder": os.path.abspath(folder), "output": os.path.abspath(output)}
    with training_progress() as progress, StopOnSignal("saving a checkpoint after this step") as signals:
        report = recorded_job(library, run_key, "pretrain", arguments, run, signals.requested)
    if _is_reporting_process():
        (print_json if as_json else _print_report)(asdict(report))
    return 130 if report.interrupted else 0


def _is_reporting_process() -> bool:
    """Of several processes that train together, only one prints."""
    from vitmae_search.training import is_main_process

    return is_main_process()


def _architecture(model: str, chosen: Mapping[str, Any], given: set[str]) -> dict[str, Any] | None:
    """The fields of the architecture; with --init those that differ from it; None where none was given."""
    from vitmae_search.training import decoder_fields, model_config

    fields = {name: chosen[name] for name in _MODEL_FIELDS if chosen[name] is not None}
    fields.update(decoder_fields(chosen["decoder_layers"], chosen["decoder_width"]))
    if chosen["init"] is not None:
        return fields
    return model_config(model, **fields).to_dict() if fields or "model" in given else None


def _refuse_architecture(given: set[str]) -> None:
    for name in ("model", "image_size", "patch_size"):
        if name in given:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} cannot go with --init: the checkpoint has its own")


def _print_report(report: dict[str, Any]) -> None:
    loss = "" if report["loss"] is None else f", loss {report['loss']:.4f}"
    click.echo(
        f"{report['epochs']:.2f} epochs of {report['photos']} photos "
        f"in {report['seconds'] / 60:.1f} minutes{loss}"
    )
    if report["failed"]:
        click.echo(f"{report['failed']} photos could not be read and were left out")
    click.echo(f"checkpoint: {display_path(report['output'])}")
    if report["interrupted"]:
        click.echo("interrupted; the same command goes on from the checkpoint", err=True)
