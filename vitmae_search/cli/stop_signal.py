"""Stopping a long command: the first signal lets it finish its batch, the second one stops it at once."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType
from typing import Any, Self

import click


class StopOnSignal:
    """Within its `with` block, the first Ctrl-C or SIGTERM only sets `requested`; the second one interrupts.

    Args:
        message: What is said at the first signal, such as "stopping after this batch".
    """

    def __init__(self, message: str) -> None:
        self._message = message
        self._requested = False
        self._before: dict[int, Any] = {}

    def requested(self) -> bool:
        """Whether a signal came; for the `cancelled` argument of `Library`'s methods."""
        return self._requested

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
        # Not through `sys.stderr`, which cannot be written to while the interrupted code is writing to it.
        with suppress(OSError):
            os.write(2, f"{self._message}; press Ctrl-C again to stop at once\n".encode())


def exit_code(interrupted: bool) -> int:
    """The exit code of a command that can be stopped: 0, or 130 with a message if it was."""
    if not interrupted:
        return 0
    click.echo("interrupted; what was done is kept, and the same command goes on from here", err=True)
    return 130
