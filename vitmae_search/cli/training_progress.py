"""Progress of a training, on stderr: bars on a terminal, else lines."""

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

LINE_INTERVAL = 15.0
"""Seconds between lines."""


class TrainingProgress(Protocol):
    """The callbacks of a training."""

    def packed(self, done: int, total: int) -> None:
        """Photos were packed.

        Args:
            done: How many so far.
            total: Of how many.
        """

    def encoded(self, done: int, total: int) -> None:
        """Views were encoded.

        Args:
            done: How many so far.
            total: Of how many.
        """

    def compiled(self, seconds: float) -> None:
        """The layers were compiled, in so many seconds."""

    def trained(self, progress: PretrainProgress) -> None:
        """A step of the pretraining was logged."""

    def tuned(self, progress: FinetuneProgress) -> None:
        """A step of the fine-tuning was logged."""


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

    def trained(self, progress: PretrainProgress) -> None:
        self._show("training", progress.fraction, 1.0, pretrain_text(progress))

    def tuned(self, progress: FinetuneProgress) -> None:
        self._show("training", progress.fraction, 1.0, finetune_text(progress))

    def _show(self, what: str, done: float, total: float, text: str) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total, text="")
        self._bars.update(self._tasks[what], completed=done, text=text)


class _Lines:
    def __init__(self) -> None:
        self._last = -math.inf

    def packed(self, done: int, total: int) -> None:
        self._print(f"packing: {done} of {total} photos", always=done == total)

    def encoded(self, done: int, total: int) -> None:
        self._print(f"encoding: {done} of {total} views", always=done == total)

    def compiled(self, seconds: float) -> None:
        self._print(f"compiling: {seconds:.0f} seconds", always=True)

    def trained(self, progress: PretrainProgress) -> None:
        self._print(
            f"training: {progress.fraction:.1%}, {pretrain_text(progress)}", always=progress.fraction >= 1
        )

    def tuned(self, progress: FinetuneProgress) -> None:
        self._print(
            f"training: {progress.fraction:.1%}, {finetune_text(progress)}", always=progress.fraction >= 1
        )

    def _print(self, text: str, *, always: bool) -> None:
        now = time.monotonic()
        if always or now - self._last >= LINE_INTERVAL:
            self._last = -math.inf if always else now  # the next phase begins with a line
            click.echo(text, err=True)


def pretrain_text(progress: PretrainProgress) -> str:
    """Epoch, loss, images a second and remaining time, on one line."""
    line = progress.line
    left = timedelta(seconds=round(progress.remaining))
    terms = "" if line.contrastive is None else f" (contrastive {line.contrastive:.4f})"
    digits = 0 if line.images_per_second >= 10 else 1
    speed = f"{line.images_per_second:.{digits}f} images/s"
    return f"epoch {line.epoch:.2f}, loss {line.loss:.4f}{terms}, {speed}, {left} left"


def finetune_text(progress: FinetuneProgress) -> str:
    """Epoch, loss, accuracy on the photos held out and remaining time, on one line."""
    accuracy = "" if progress.accuracy is None else f", accuracy {progress.accuracy:.1%}"
    left = timedelta(seconds=round(progress.remaining))
    return f"epoch {progress.epoch:.2f}, loss {progress.loss:.4f}{accuracy}, {left} left"
