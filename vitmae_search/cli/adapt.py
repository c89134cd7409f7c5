"""The command `vitmae-search adapt`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitmae_search.bundled import DEFAULT_MODEL
from vitmae_search.cli.common import (
    PathOnDisk,
    json_option,
    library_option,
    open_library,
    print_json,
)
from vitmae_search.cli.embedding_options import embedding_options
from vitmae_search.cli.index import SHOWN_FAILURES
from vitmae_search.cli.training_options import POSITIVE, folder_argument, given_options, seed_option
from vitmae_search.errors import display_path
from vitmae_search.records import ScoreCalibration

if TYPE_CHECKING:
    from vitmae_search.library import Library
    from vitmae_search.library.adapt.adaptation import AdaptReport

_ADAPT_OPTIONS = (
    *("photos", "views", "held_out", "minutes", "method", "dimension", "epochs", "neighbours", "seed"),
)
_PROJECTION_OPTIONS = {
    *("photos", "views", "held_out", "method", "dimension", "neighbours"),
    *("embedder", "projection", "decode", "batch_size"),
}
_ENCODER_EPOCHS = 20
_ENCODER_FOLDER = Path("runs/adapt")


@click.command("adapt")
@folder_argument
@library_option
@embedding_options
@click.option(
    "--photos",
    type=click.IntRange(16),
    default=2000,
    show_default=True,
    help="To learn from, at most.",
)
@click.option("--views", type=click.IntRange(2, 256), default=8, show_default=True, help="Of each photo.")
@click.option(
    "--held-out",
    type=click.IntRange(8),
    default=500,
    show_default=True,
    help="Photos to compare with, at most; no more than a fifth of the folder.",
)
@click.option("--minutes", type=POSITIVE, help="End by this much time; fewer photos are read, then.")
@click.option(
    "--method",
    type=click.Choice(["auto", "whitening", "discriminant", "head"]),
    default="auto",
    show_default=True,
    help="Whiten the features, weigh what views of a photo share, or train a small network from there on.",
)
@click.option(
    "--dimension", type=click.IntRange(1), default=256, show_default=True, help="Of the vectors, at most."
)
@click.option("--epochs", type=click.IntRange(1), help="Passes.  [default: head 60, encoder 20]")
@click.option(
    "--neighbours",
    metavar="SHARE",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Head: share of the pairs that take a near photo for the same.",
)
@click.option(
    "--output",
    type=PathOnDisk(path_type=Path),
    metavar="FILE",
    help="Write the projection here and leave the library alone. With --encoder, the run's folder.",
)
@click.option(
    "--encoder", is_flag=True, help="Go on with the masked autoencoder's own pretraining on these photos."
)
@seed_option
@click.option("--run-key", hidden=True)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    folder: str,
    library: Path | None,
    output: Path | None,
    encoder: bool,
    run_key: str | None,
    as_json: bool,
    **chosen: Any,
) -> int:
    """Learn from photos of FOLDER, without labels, to find photos better.

    Photos are drawn, changed in many ways and encoded; from that a projection is learned that finds a photo
    again after such changes. It is compared with what is in use on photos held out, and becomes a new space
    of the library only where it is better beyond chance. Only the photos drawn are read: the new space is
    made of the features that the library has. Ctrl-C changes nothing; the same command goes on with what was
    encoded.

    \b
    vitmae-search adapt ~/Pictures
    vitmae-search adapt ~/Pictures --minutes 5
    vitmae-search adapt ~/Pictures --encoder --minutes 60 --output runs/mine
    """
    learning = {name: chosen.pop(name) for name in _ADAPT_OPTIONS}
    if encoder:
        _refuse_projection_options(given_options(ctx) & _PROJECTION_OPTIONS)
        with open_library(library, **chosen) as opened:
            model = _encoder_model(opened, chosen)
        options = {
            "init": model,
            "epochs": float(learning["epochs"] or _ENCODER_EPOCHS),
            "max_minutes": learning["minutes"],
            "seed": learning["seed"],
            "device": chosen["device"] or "auto",
        }
        return _adapt_encoder(folder, output or _ENCODER_FOLDER, options, library, run_key, as_json)
    from vitmae_search.cli.progress import show_progress
    from vitmae_search.cli.stop_signal import StopOnSignal, exit_code
    from vitmae_search.library.adapt.fit import AdaptOptions

    with (
        open_library(library, **chosen) as opened,
        show_progress() as on_progress,
        StopOnSignal("stopping after this batch") as stop,
    ):
        report = opened.adapt(
            folder,
            AdaptOptions(**{name: value for name, value in learning.items() if value is not None}),
            output=output,
            on_progress=on_progress,
            cancelled=stop.requested,
            run_key=run_key,
        )
    if as_json:
        print_json(report_json(report))
    elif not report.interrupted:
        _print(report)
    return exit_code(report.interrupted)


def report_json(report: AdaptReport) -> dict[str, object]:
    """The keys of `adapt --json`. Figures are shares from 0 to 1 with the ends of their 95 % interval."""
    values = asdict(report)
    values["seconds"] = round(report.seconds, 3)
    values["failures"] = [{"path": failure.path, "reason": failure.reason} for failure in report.failures]
    return values


def _print(report: AdaptReport) -> None:
    failed = f", {report.failed} failed" if report.failed else ""
    click.echo(
        f"learned from {report.photos} photos in {report.views} views each, compared on {report.held_out} "
        f"others{failed} ({report.seconds:.1f} s)"
    )
    assert report.before is not None
    assert report.after is not None
    click.echo(f"{'recall@1':20s} {_kind_text(report.before_kind):>15s} {_kind_text(report.kind):>15s}")
    for kind, before in report.before.items():
        click.echo(f"{kind:20s} {before.value:15.1%} {report.after[kind].value:15.1%}")
    click.echo(f"{'difference':20s} {_points(report)}")
    if report.calibration is not None:
        click.echo(f"scores: {_calibration_text(report.calibration)}")
    for failure in report.failures[:SHOWN_FAILURES]:
        click.echo(f"failed: {display_path(failure.path)}: {failure.reason}")
    click.echo(_outcome(report))


def _calibration_text(calibration: ScoreCalibration) -> str:
    parts = [] if calibration.same is None else [f"the same photo from {calibration.same:.4f} on"]
    parts += [] if calibration.alike is None else [f"no longer alike below {calibration.alike:.4f}"]
    return ", ".join(parts) or "they tell nothing"


def _kind_text(kind: str | None) -> str:
    return kind or "no projection"


def _points(report: AdaptReport) -> str:
    difference = report.difference
    assert difference is not None
    value, low, high = (f"{100 * end:+.1f}" for end in (difference.value, difference.low, difference.high))
    return f"{value} points ({low} to {high})"


def _outcome(report: AdaptReport) -> str:
    if not report.kept:
        return "not better beyond chance: nothing was changed"
    if report.output is not None:
        return f"written to {display_path(report.output)}"
    return f"space {report.space} was made of the library's features, and searches use it now"


def _refuse_projection_options(names: set[str]) -> None:
    if names:
        option = "--" + min(names).replace("_", "-")
        raise click.UsageError(f"{option} is for a projection; --encoder goes on with the pretraining")


def _adapt_encoder(
    folder: str,
    output: Path,
    options: dict[str, Any],
    library: Path | None,
    run_key: str | None,
    as_json: bool,
) -> int:
    """Go on pretraining the selected model, and print the command to index with the result."""
    from vitmae_search.cli.stop_signal import StopOnSignal
    from vitmae_search.cli.training_progress import training_progress
    from vitmae_search.library.jobs import recorded_job
    from vitmae_search.training import PretrainReport, pretrain

    def run(stop: Callable[[], bool]) -> PretrainReport:
        return pretrain(
            folder,
            output,
            options=options,
            on_packed=progress.packed,
            on_progress=progress.trained,
            stop=stop,
        )

    arguments = {"folder": folder, "output": str(output), "options": options}
    with training_progress() as progress, StopOnSignal("saving a checkpoint after this step") as signals:
        report = recorded_job(library, run_key, "adapt", arguments, run, signals.requested)
    command = f"vitmae-search index {shlex.quote(folder)} --model {shlex.quote(str(output))}"
    if as_json:
        print_json({**asdict(report), "index_with": command})
    else:
        click.echo(f"{report.epochs:.2f} epochs of {report.photos} photos; index with it:\n{command}")
    if report.interrupted:
        click.echo("interrupted; the same command goes on from the checkpoint", err=True)
    return 130 if report.interrupted else 0


def _encoder_model(library: Library, opening: dict[str, Any]) -> str:
    """The named model, else the current space's, else the bundled one."""
    from vitmae_search.library.embedders import DEFAULT_PLUGIN

    named = opening["model"] or opening["options"].get("model")
    if named is not None:
        return str(named)
    current = next((space for space in library.spaces() if space.current), None)
    if current is None or current.plugin != DEFAULT_PLUGIN:
        return DEFAULT_MODEL
    return str(current.options["model"])
