"""A pool of child processes that decode photos, one for each thread that asks for one.

Indexing and packing for training both decode in this pool. What its workers run is a handler: any object
whose methods return an iterable of answers. A worker makes it with a pickled factory.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from vitmae_search.photos.fork_server import FORK_SERVER
from vitmae_search.photos.worker_process import LocalWorker, WorkerDied, WorkerProcess

log = logging.getLogger(__name__)

_RESTARTS = 3
_RESTART_SECONDS = 0.2
"""How often a process is started again, and how long the machine gets to recover first."""


def launch_workers(*modules: str) -> None:
    """Begin to prepare worker processes, so that they start at once when they are asked for.

    Args:
        *modules: Names of modules that their handlers need.
    """
    with suppress(OSError):  # whoever asks is told
        FORK_SERVER.launch(*modules)


class DecodePool:
    """A worker process for each thread that asks, with a handler of its own."""

    def __init__(self, make_handler: Callable[[], object], *simpler: Callable[[], object]) -> None:
        """Prepare the pool; a process is started when its thread asks for it.

        Args:
            make_handler: Makes the handler of one worker; must pickle.
            *simpler: In place of it, where it cannot be made in a process.
        """
        self._make_handler = make_handler
        self._handlers = [make_handler, *simpler]
        self._own = threading.local()
        self._lock = threading.Lock()
        self._started: set[WorkerProcess] = set()
        self._any_started = False
        self._closed = False

    def worker(self) -> LocalWorker | WorkerProcess:
        """Return the calling thread's worker, started at its first call and again after it died.

        Where not even the first process can be started, the log says so, and the threads do the work.

        Raises:
            WorkerDied: No process can be started any more; or the pool is closed, and threads ask only
                after Ctrl-C, when nobody waits for them.
        """
        worker: LocalWorker | WorkerProcess | None = getattr(self._own, "worker", None)
        if self._closed:
            raise WorkerDied
        if worker is None or worker.died:
            worker = self._own.worker = self._start()
        return worker

    def close(self) -> None:
        """End all processes."""
        self._closed = True
        for process in list(self._started):
            process.close()

    def _start(self) -> LocalWorker | WorkerProcess:
        tries = 0
        while self._handlers:
            make_handler = self._handlers[0]
            try:
                return self._add(WorkerProcess(pickle.dumps(make_handler, pickle.HIGHEST_PROTOCOL)))
            except Exception as error:  # pickling raises nearly anything
                tries += 1
                if self._closed or (self._any_started and tries > _RESTARTS):
                    raise WorkerDied("no process can be started to decode it") from error
                if self._any_started:
                    time.sleep(_RESTART_SECONDS)
                else:
                    self._give_up(make_handler, error)
        return LocalWorker(self._make_handler())

    def _add(self, process: WorkerProcess) -> WorkerProcess:
        with self._lock:
            self._started = {other for other in self._started if not other.died} | {process}
            self._any_started = True
        if self._closed:
            process.close()
            raise WorkerDied
        return process

    def _give_up(self, make_handler: Callable[[], object], error: Exception) -> None:
        """Use the next handler, or none. Several threads may fail at once."""
        with self._lock:
            if self._handlers[:1] != [make_handler]:
                return
            del self._handlers[0]
        if self._handlers:
            log.info("photos are decoded in processes and prepared in threads: %r", error)
        else:
            log.warning("photos are decoded in threads, for no process starts: %r", error)
