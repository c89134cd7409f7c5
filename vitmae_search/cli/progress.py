"""The progress of indexing, classifying and evaluating: a bar on a terminal, else lines; on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from vitmae_search.records import IndexProgress

PLAIN_EVERY = 5.0
"""Seconds between plain lines."""


@contextmanager
def index_progress() -> Iterator[Callable[[IndexProgress], None]]:
    """A callback to give to `Library.index`."""
    if sys.stderr.isatty():
        with _bar() as callback:
            yield callback
    else:
        yield _plain_lines()


@contextmanager
def _bar() -> Iterator[Callable[[IndexProgress], None]]:
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
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("scanning", total=None, rate=0.0, failed=0)

        def show(moment: IndexProgress) -> None:
            progress.update(
                task,
                description=moment.phase,
                completed=moment.done,
                total=moment.total,
                rate=moment.photos_per_second,
                failed=moment.failed,
            )

        yield show


def _plain_lines() -> Callable[[IndexProgress], None]:
    last_time, last_phase = 0.0, ""

    def show(moment: IndexProgress) -> None:
        nonlocal last_time, last_phase
        now = time.monotonic()
        if moment.phase == last_phase and now - last_time < PLAIN_EVERY:
            return
        last_time, last_phase = now, moment.phase
        click.echo(plain_line(moment), err=True)

    return show


def plain_line(moment: IndexProgress) -> str:
    """One line for a log: phase, counts, rate and remaining time."""
    total = "" if moment.total is None else f" of {moment.total}"
    counted = "passes" if moment.phase == "training" else "photos"
    line = f"{moment.phase}: {moment.done}{total} {counted}"
    if moment.phase not in ("indexing", "classifying", "evaluating", "encoding"):
        return line
    line += f", {moment.photos_per_second:.1f} photos/s, {moment.failed} failed"
    if moment.total is not None and moment.photos_per_second > 0:
        line += f", {(moment.total - moment.done) / moment.photos_per_second:.0f} s left"
    return line
