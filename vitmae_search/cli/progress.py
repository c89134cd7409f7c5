"""Progress of indexing, classifying, evaluating and adapting, on stderr: a bar on a terminal, else lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from vitmae_search.records import JobProgress

LINE_INTERVAL = 5.0
"""Seconds between lines."""


@contextmanager
def show_progress() -> Iterator[Callable[[JobProgress], None]]:
    """A callback to give to `Library.index`."""
    if sys.stderr.isatty():
        with _bar() as callback:
            yield callback
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Callable[[JobProgress], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} photos/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]} failed"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("scanning", total=None, rate=0.0, failed=0)

        def show(progress: JobProgress) -> None:
            bar.update(
                task,
                description=progress.phase,
                completed=progress.done,
                total=progress.total,
                rate=progress.photos_per_second,
                failed=progress.failed,
            )

        yield show


def _lines() -> Callable[[JobProgress], None]:
    last_time, last_phase = 0.0, ""

    def show(progress: JobProgress) -> None:
        nonlocal last_time, last_phase
        now = time.monotonic()
        if progress.phase == last_phase and now - last_time < LINE_INTERVAL:
            return
        last_time, last_phase = now, progress.phase
        click.echo(progress_line(progress), err=True)

    return show


def progress_line(progress: JobProgress) -> str:
    """One line for a log: phase, counts, rate and remaining time."""
    total = "" if progress.total is None else f" of {progress.total}"
    counted = {"training": "passes", "mapping": "steps"}.get(progress.phase, "photos")
    phase = "waiting for another run" if progress.phase == "waiting" else progress.phase
    line = f"{phase}: {progress.done}{total} {counted}"
    if progress.phase not in ("indexing", "classifying", "evaluating", "encoding"):
        return line
    line += f", {progress.photos_per_second:.1f} photos/s, {progress.failed} failed"
    if progress.total is not None and progress.photos_per_second > 0:
        line += f", {(progress.total - progress.done) / progress.photos_per_second:.0f} s left"
    return line
