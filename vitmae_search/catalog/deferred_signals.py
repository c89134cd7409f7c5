"""Signals that wait while a transaction is open.

Python runs a signal's handler between any two instructions of the main thread, and Ctrl-C's handler raises
`KeyboardInterrupt` there: while a transaction is being ended, say, or a lock is being released. SQLAlchemy
gives up a connection that was interrupted, but SQLite keeps a closed connection open, with its transaction
and locks, while a cursor of it exists, and the traceback of the interrupt holds one.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

_Handler = Callable[[int, FrameType | None], Any]


class DeferredSignals:
    """Inside its `with` block the handlers of SIGINT and SIGTERM run in `deliver` and at the end only.

    Only the main thread is affected, because no other thread runs signal handlers.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, _Handler] = {}
        self._pending: list[tuple[int, FrameType | None]] = []
        self._deferring = False

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._deferring = True
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):  # neither the system's default nor ignored
                    self._handlers[number] = handler
                    signal.signal(number, self._receive)
        except BaseException:  # from a handler that was not replaced yet
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            # SIGINT, the usual one, comes last: whatever its handler raises, all are restored by then.
            for number, handler in reversed(self._handlers.items()):
                signal.signal(number, handler)
        finally:
            self._deferring = False
        self.deliver()

    def deliver(self) -> None:
        """Run the handlers of the signals that came; call it where their exceptions do no harm."""
        while self._pending:
            number, frame = self._pending.pop(0)
            self._handlers[number](number, frame)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._deferring:
            self._pending.append((number, frame))
        else:
            self._handlers[number](number, frame)
