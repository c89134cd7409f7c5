"""The progress of a training: a bar on a terminal, plain lines otherwise. Always on stderr."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    import rich.progress

    from vitmae_search.training import FinetuneProgress, PretrainProgress

PLAIN_EVERY = 15.0
"""Seconds between plain lines."""


class TrainingProgress(Protocol):
    """What to tell: photos packed or encoded of all, and a moment of the training."""

    def packed(self, done: int, total: int) -> None: ...
    def encoded(self, done: int, total: int) -> None: ...
    def compiled(self, seconds: float) -> None: ...
    def trained(self, moment: PretrainProgress) -> None: ...
    def tuned(self, moment: FinetuneProgress) -> None: ...


@contextmanager
def training_progress() -> Iterator[TrainingProgress]:
    """Callbacks to give to `pretrain` and `finetune`."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    bar = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    columns = (*bar, TextColumn("{task.fields[text]}"))
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield _Bars(bars)


class _Bars:
    def __init__(self, bars: rich.progress.Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, rich.progress.TaskID] = {}

    def packed(self, done: int, total: int) -> None:
        self._show("packing photos", done, total, f"{done} of {total}")

    def encoded(self, done: int, total: int) -> None:
        self._show("encoding photos", done, total, f"{done} of {total} views")

    def compiled(self, seconds: float) -> None:
        self._show("compiling", 1.0, 1.0, f"{seconds:.0f} seconds")

    def trained(self, moment: PretrainProgress) -> None:
        self._show("training", moment.fraction, 1.0, describe(moment))

    def tuned(self, moment: FinetuneProgress) -> None:
        self._show("training", moment.fraction, 1.0, describe_tuning(moment))

    def _show(self, what: str, done: float, total: float, text: str) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total, text="")
        self._bars.update(self._tasks[what], completed=done, text=text)


class _Lines:
    def __init__(self) -> None:
        self._last = -math.inf

    def packed(self, done: int, total: int) -> None:
        self._say(f"packing: {done} of {total} photos", always=done == total)

    def encoded(self, done: int, total: int) -> None:
        self._say(f"encoding: {done} of {total} views", always=done == total)

    def compiled(self, seconds: float) -> None:
        self._say(f"compiling: {seconds:.0f} seconds", always=True)

    def trained(self, moment: PretrainProgress) -> None:
        self._say(f"training: {moment.fraction:.1%}, {describe(moment)}", always=moment.fraction >= 1)

    def tuned(self, moment: FinetuneProgress) -> None:
        self._say(f"training: {moment.fraction:.1%}, {describe_tuning(moment)}", always=moment.fraction >= 1)

    def _say(self, text: str, *, always: bool) -> None:
        now = time.monotonic()
        if always or now - self._last >= PLAIN_EVERY:
            self._last = -math.inf if always else now  # what comes after the end of a phase is news
            click.echo(text, err=True)


def describe(moment: PretrainProgress) -> str:
    """Epoch, loss, rate and remaining time in a line."""
    line = moment.line
    left = timedelta(seconds=round(moment.remaining))
    terms = "" if line.contrastive is None else f" (contrastive {line.contrastive:.4f})"
    speed = f"{line.images_per_second:.0f} images/s"
    return f"epoch {line.epoch:.2f}, loss {line.loss:.4f}{terms}, {speed}, {left} left"


def describe_tuning(moment: FinetuneProgress) -> str:
    """Epoch, loss, accuracy on the photos held out, and remaining time in a line."""
    accuracy = "" if moment.accuracy is None else f", accuracy {moment.accuracy:.1%}"
    left = timedelta(seconds=round(moment.remaining))
    return f"epoch {moment.epoch:.2f}, loss {moment.loss:.4f}{accuracy}, {left} left"
