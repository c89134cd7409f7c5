"""The command `vitmae-search classify`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from vitmae_search.address import absolute_path
from vitmae_search.cli.common import (
    device_options,
    json_option,
    library_option,
    open_library,
    print_json,
    tags_line,
)
from vitmae_search.cli.index import SHOWN_FAILURES
from vitmae_search.errors import display_path
from vitmae_search.records import ClassifyReport


@click.command("classify")
@click.option(
    "--model",
    required=True,
    metavar="PATH|HUB-ID",
    help="A classifier: what `finetune` writes, or any ViTForImageClassification checkpoint.",
)
@click.option("--plugin", default="vitmae", show_default=True, help="The plugin that opens the model.")
@click.option("--top", type=click.IntRange(1, 1000), default=3, show_default=True, help="Tags a photo.")
@click.option(
    "--min-confidence",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="Write no tag that the classifier is less sure of.",
)
@click.option("--under", type=click.Path(), metavar="FOLDER", help="Only photos in this folder.")
@click.option("--all", "again", is_flag=True, help="Classify photos anew that have been classified before.")
@click.option("--batch-size", type=click.IntRange(1, 4096), help="[default: as suits model and device]")
@device_options
@library_option
@click.option("--run-key", hidden=True)
@json_option
def command(
    model: str,
    plugin: str,
    top: int,
    min_confidence: float,
    under: str | None,
    again: bool,
    batch_size: int | None,
    device: str | None,
    precision: str,
    library: Path | None,
    run_key: str | None,
    as_json: bool,
) -> int:
    """Give the library's photos tags, with a classifier.

    Each photo gets the classes that the classifier is surest of, and how sure it is, for `search --tag`
    and the app's filters. Only photos that this classifier has not seen are read; another --top or
    --min-confidence sees them all again, and a classifier that was trained anew replaces what it said.
    Ctrl-C keeps all that was finished; run the same command again to go on.

    \b
    vitmae-search classify --model runs/finetune
    vitmae-search search holiday.jpg --tag dog --min-confidence 0.8
    """
    from vitmae_search.cli.progress import show_progress
    from vitmae_search.cli.stop_signal import StopOnSignal, exit_code

    opening = {"device": device, "precision": precision, "batch_size": batch_size}
    with (
        open_library(library, **opening) as opened,
        show_progress() as on_progress,
        StopOnSignal("stopping after this batch") as stop,
    ):
        report = opened.classify(
            model,
            plugin=plugin,
            top=top,
            min_confidence=min_confidence,
            under=None if under is None else absolute_path(under),
            again=again,
            on_progress=on_progress,
            cancelled=stop.requested,
            run_key=run_key,
        )
        tags = {} if as_json else opened.tag_counts()
    if as_json:
        print_json(report_json(report))
    else:
        _print(report, tags)
    return exit_code(report.interrupted)


def report_json(report: ClassifyReport) -> dict[str, object]:
    """The keys of `classify --json`. `labels` are all that the classifier can say."""
    return {
        "classified": report.classified,
        "unchanged": report.unchanged,
        "failed": report.failed,
        "failures": [{"path": failure.path, "reason": failure.reason} for failure in report.failures],
        "labels": list(report.labels),
        "seconds": round(report.seconds, 3),
        "model": report.model,
        "interrupted": report.interrupted,
    }


def _print(report: ClassifyReport, tags: Mapping[str, int]) -> None:
    click.echo(
        f"{report.classified} photos classified by {display_path(report.model)}, "
        f"{report.unchanged} unchanged, {report.failed} failed ({report.seconds:.1f} s)"
    )
    if tags:
        click.echo(f"tags of the library: {tags_line(tags)}")
    for failure in report.failures[:SHOWN_FAILURES]:
        click.echo(f"failed: {display_path(failure.path)}: {failure.reason}")
    if len(report.failures) > SHOWN_FAILURES:
        click.echo(f"... and {len(report.failures) - SHOWN_FAILURES} more; --json lists them all")
