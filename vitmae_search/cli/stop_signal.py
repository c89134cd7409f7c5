"""How a long command ends early: the first signal asks, the second one insists."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType
from typing import Any, Self

import click


class StopOnSignal:
    """The first Ctrl-C or SIGTERM lets the piece of work in hand finish; a second one stops at once.

    Holds inside its `with` block. `doing` completes the message, such as "stopping after this batch".
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._asked = False
        self._before: dict[int, Any] = {}

    def asked(self) -> bool:
        """Whether the person wants to stop."""
        return self._asked

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        # Not through `sys.stderr`: the signal may have come while that was being written to.
        with suppress(OSError):
            os.write(2, f"{self._doing}; press Ctrl-C again to stop at once\n".encode())


def ending(interrupted: bool) -> int:
    """The exit code of a command that can be stopped, after saying so where it was."""
    if not interrupted:
        return 0
    click.echo("interrupted; what was done is kept, and the same command goes on from here", err=True)
    return 130
