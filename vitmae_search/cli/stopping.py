"""How a long command ends early: the first signal asks, the second one insists."""

from __future__ import annotations

import signal
from types import FrameType

import click


class StopOnSignal:
    """The first Ctrl-C or SIGTERM lets the piece of work in hand finish; a second one stops at once.

    `doing` completes the message, such as "saving a checkpoint after this step".
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def asked(self) -> bool:
        return self._asked

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        click.echo(f"{self._doing}; press Ctrl-C again to stop at once", err=True)
