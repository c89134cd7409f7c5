"""A pool of child processes that decode photos, one for each thread that asks for one.

Decoding a small photo holds Python's lock for about a sixth of its time, so threads alone use only a few
cores. Indexing and packing for training both decode in this pool.

What they run is a handler: any object whose methods return an iterable of answers. A child makes it with a
pickled factory, and its methods are called over pipes. A child never runs the program's own `__main__` again,
as `multiprocessing` would, and it ends when its pipe closes, however the parent ends.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import IO, Any

log = logging.getLogger(__name__)

_COMMAND = (
    "import importlib, json, os, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "os.putenv('OPENBLAS_NUM_THREADS', '1'); "
    f"importlib.import_module({__name__!r}).main()"
)
_EXIT_SECONDS = 1.0
"""How long a process that closed its pipe may take to end."""
_PIPE_BYTES = 1 << 20
"""The most that Linux allows: a child goes on decoding while its thread waits for Python's lock."""


CPU_SECONDS = 60
"""Computing time in which a worker must give an answer, one photo. Large photos take some seconds; a JPEG
with thousands of scans would take many minutes."""

WORKER_DIED_REASON = "decoding it ended the process that did: a crash, or no memory"


class WorkerDied(Exception):
    """A worker process ended without an answer: killed, crashed in a decoder, or out of time.

    Attributes:
        reason: Why a photo fails at which its process dies, even alone.
    """

    def __init__(self, reason: str = WORKER_DIED_REASON) -> None:
        super().__init__(reason)
        self.reason = reason


class LocalWorker:
    """Calls the methods of a handler in this process."""

    died = False

    def __init__(self, handler: object) -> None:
        self._handler = handler

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """Return all answers of `handler.method(*arguments)`.

        Args:
            method: Name of the method.
            *arguments: Its arguments.
        """
        return list(getattr(self._handler, method)(*arguments))


class WorkerProcess:
    """Calls the methods of a handler in a child process. Used by one thread."""

    def __init__(self, factory: bytes, cpu_seconds: int = CPU_SECONDS) -> None:
        """Start the process and wait until its handler is made.

        Args:
            factory: Pickled callable without parameters that makes the handler.
            cpu_seconds: Computing time in which each answer must be given, where the system can limit it.

        Raises:
            OSError: No process can be started.
            WorkerDied: It ended at once.
            Exception: What unpickling or calling the factory raises in the child.
        """
        self.died = False
        self._cpu_seconds = cpu_seconds
        import_path = json.dumps([os.path.abspath(path) for path in sys.path])
        self._process = subprocess.Popen(  # noqa: S603  our own command
            [sys.executable, "-P", "-c", _COMMAND, import_path, str(cpu_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C in a terminal goes to this process alone, which ends its children
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        _enlarge_pipe(self._answers.fileno())
        try:
            self._send(factory)
            self._receive()
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """Return all answers of `handler.method(*arguments)`; the child goes on while they are read.

        Args:
            method: Name of the method.
            *arguments: Its arguments, which pickle.

        Raises:
            WorkerDied: The process ended; it is closed.
            Exception: What the method raised, which ends the process.
        """
        try:
            self._send(pickle.dumps((method, arguments), pickle.HIGHEST_PROTOCOL))
            return self._receive()
        except WorkerDied:
            raise WorkerDied(self._reason()) from None

    def _reason(self) -> str:
        """End the process, if it did not end by itself, and say why a photo fails at which it did."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_SECONDS)
        self.close()
        if self._process.returncode == -getattr(signal, "SIGXCPU", 0):
            return f"decoding it takes more than {self._cpu_seconds} seconds of computing time"
        return WORKER_DIED_REASON

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self.died = True
        self._process.kill()
        self._process.wait()
        with suppress(OSError):
            self._requests.close()
        self._answers.close()

    def _send(self, request: bytes) -> None:
        try:
            self._requests.write(request)
            self._requests.flush()
        except (OSError, ValueError) as error:
            raise WorkerDied from error

    def _receive(self) -> list[Any]:
        """Read answers up to the end of the request's."""
        answers: list[Any] = []
        while True:
            try:
                kind, value = pickle.load(self._answers)  # noqa: S301  our own process
            except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
                raise WorkerDied from error
            if kind == "error":
                raise value
            if kind == "end":
                return answers
            answers.append(value)


class DecodePool:
    """A worker for each thread that asks: in a child process, or in that thread where none is wanted."""

    def __init__(self, make_handler: Callable[[], object], *, processes: bool) -> None:
        """Prepare the pool; a process is started when its thread asks for it.

        Args:
            make_handler: Makes the handler of one worker; must pickle for `processes`.
            processes: Whether to use child processes. Where that fails, the log says why, and the
                threads do the work.
        """
        self._make_handler = make_handler
        self._own = threading.local()
        self._started: set[WorkerProcess] = set()
        self._closed = False
        self._factory: bytes | None = None
        if processes:
            try:
                self._factory = pickle.dumps(make_handler, pickle.HIGHEST_PROTOCOL)
            except Exception as error:  # pickling raises nearly anything
                log.warning("photos are decoded in threads: %s", error)

    def worker(self) -> LocalWorker | WorkerProcess:
        """Return the calling thread's worker, started at its first call and again after it died.

        Raises:
            WorkerDied: The pool is closed. Threads ask then only after Ctrl-C, when nobody waits for them.
        """
        if self._closed:
            raise WorkerDied
        worker: LocalWorker | WorkerProcess | None = getattr(self._own, "worker", None)
        if worker is None or worker.died:
            worker = self._own.worker = self._start_process() or LocalWorker(self._make_handler())
        return worker

    def close(self) -> None:
        """End all processes."""
        self._closed = True
        for process in list(self._started):
            process.close()

    def _start_process(self) -> WorkerProcess | None:
        factory = self._factory
        if factory is None:
            return None
        try:
            process = WorkerProcess(factory)
        except Exception as error:
            if self._factory is not None:  # other threads may have failed meanwhile
                self._factory = None
                log.warning("photos are decoded in threads, for no process starts: %r", error)
            return None
        self._started = {other for other in self._started if not other.died} | {process}
        if self._closed:
            process.close()
            raise WorkerDied
        return process


def _enlarge_pipe(pipe: int) -> None:
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def main() -> None:
    """Serve requests on stdin, in a child process; what a plugin prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers, partial(_limit_cpu_time, int(sys.argv[1])))


def _limit_cpu_time(seconds: int) -> None:
    """Let the system end this process (SIGXCPU) after so many seconds of computing from now on."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # SIGXCPU would leave a core file


def serve(requests: IO[bytes], answers: IO[bytes], before_answer: Callable[[], None] = lambda: None) -> None:
    """Answer requests until there are no more, or a method raises.

    Args:
        requests: Pickles, one after the other: the factory, then a (method, arguments) for each call.
        answers: Gets pickles of ("answer", value) as the method gives them, then ("end", None), or
            ("error", exception) where the method raised. The factory is answered with ("end", None).
        before_answer: Called before each answer is computed.
    """
    try:
        handler = pickle.load(requests)()  # noqa: S301  from our parent
        while True:
            _write(answers, "end", None)
            answers.flush()
            method, arguments = pickle.load(requests)  # noqa: S301
            before_answer()
            for value in getattr(handler, method)(*arguments):
                _write(answers, "answer", value)
                before_answer()
    except (EOFError, BrokenPipeError):
        return
    except BaseException as error:
        with suppress(OSError):
            _write(answers, "error", _picklable(error))
            answers.flush()


def _write(answers: IO[bytes], kind: str, value: object) -> None:
    pickle.dump((kind, value), answers, pickle.HIGHEST_PROTOCOL)


def _picklable(error: BaseException) -> BaseException:
    """Return the error itself, or a RuntimeError with its text where it does not survive pickling."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own
    except Exception:
        return RuntimeError(repr(error))
    return error
