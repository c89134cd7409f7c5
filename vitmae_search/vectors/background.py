"""One thread that does what takes long, after and beside the searches."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from vitmae_search.errors import VitmaeSearchError
from vitmae_search.vectors.protocols import VectorSource

log = logging.getLogger(__name__)

_NICE = 10


class Background:
    """Calls `work(source, cancelled)` for each source it is told of, one at a time.

    The thread begins with the first one, gives way to everything else (where the system knows priorities of
    threads, which Linux does), and ends with `close`.
    """

    def __init__(self, work: Callable[[VectorSource, Callable[[], bool]], None]) -> None:
        self._work = work
        self._waiting: dict[str, VectorSource] = {}
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, source: VectorSource) -> None:
        """Look after this source soon; one of the same key that waits is replaced."""
        with self._changed:
            if self._closed.is_set():
                return
            self._waiting[source.key] = source
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="vectors", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Give up what is being done, and wait until that has ended."""
        with self._changed:
            self._closed.set()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed.is_set())
                if self._closed.is_set():
                    return
                source = self._waiting.pop(next(iter(self._waiting)))
            try:
                self._work(source, self._closed.is_set)
            except VitmaeSearchError as error:
                log.warning("Looking after the vector index: %s", error)
