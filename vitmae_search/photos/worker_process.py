"""A child process that calls the methods of a handler, one at a time, each answer within limits of time.

Whatever a photo does to its decoder happens there: a crash, an endless loop, too much memory. The process is
forked by `FORK_SERVER`, and requests and answers are pickles over pipes.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import IO, Any, TypeVar

from vitmae_search.photos.fork_server import FORK_SERVER, import_path
from vitmae_search.photos.memory_budget import BUDGET

R = TypeVar("R")

CPU_SECONDS = 60
"""Computing time in which a worker must give an answer, one photo. Large photos take some seconds; a file
that is made for it could take hours."""
WALL_SECONDS = 600
"""Time on the clock for the same. It ends what waits without computing, such as for a drive that is gone,
and must not end a photo on a machine that has too much to do."""
WORKER_DIED_REASON = "decoding it ended the process that did: a crash, or no memory"

_EXIT_SECONDS = 1.0
"""How long a process that closed its pipe may take to end."""
_PIPE_BYTES = 1 << 20
"""The most that Linux allows: a child goes on decoding while its thread waits for Python's lock."""


class WorkerDied(Exception):
    """A worker process ended without an answer: killed, crashed in a decoder, or out of time.

    Attributes:
        reason: Why a photo fails at which its process dies, even alone.
        answers: Those that it gave to the same call before.
        out_of_time: Whether it took longer than its limit, which it would again.
    """

    def __init__(
        self, reason: str = WORKER_DIED_REASON, answers: list[Any] | None = None, *, out_of_time: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason, self.answers, self.out_of_time = reason, answers or [], out_of_time


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

    def __init__(
        self, factory: bytes, cpu_seconds: int = CPU_SECONDS, wall_seconds: float = WALL_SECONDS
    ) -> None:
        """Start the process and wait until its handler is made.

        Args:
            factory: Pickled callable without parameters that makes the handler.
            cpu_seconds: Computing time in which each answer must be given.
            wall_seconds: Time on the clock in which each answer must be given.

        Raises:
            OSError: No process can be started.
            WorkerDied: It ended at once.
            Exception: What unpickling or calling the factory raises in the child.
        """
        self.died = False
        self._reserved = 0
        self._limits = (cpu_seconds, wall_seconds)
        theirs, requests = os.pipe()
        answers, their_answers = os.pipe()
        _enlarge_pipe(answers)
        self._requests, self._answers = os.fdopen(requests, "wb"), os.fdopen(answers, "rb")
        try:
            try:
                self._process = FORK_SERVER.fork(theirs, their_answers)
            finally:
                os.close(theirs)
                os.close(their_answers)
        except BaseException:
            self._requests.close()
            self._answers.close()
            raise
        try:
            self._send(pickle.dumps((import_path(), os.getcwd(), self._limits)))
            self._send(factory)
            self._receive([])
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
        answers: list[Any] = []
        try:
            self._send(pickle.dumps((method, arguments), pickle.HIGHEST_PROTOCOL))
            return self._receive(answers)
        except WorkerDied:
            raise self._death(answers) from None

    def _death(self, answers: list[Any]) -> WorkerDied:
        """End the process, if it did not end by itself, and say why a photo fails at which it did."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_SECONDS)
        self.close()
        self._release()
        cpu_seconds, wall_seconds = self._limits
        if self._process.returncode == -signal.SIGXCPU:
            reason = f"decoding it takes more than {cpu_seconds} seconds of computing time"
        elif self._process.returncode == -signal.SIGALRM:
            reason = f"decoding it takes more than {wall_seconds:g} seconds"
        else:
            return WorkerDied(answers=answers)
        return WorkerDied(reason, answers, out_of_time=True)

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

    def _receive(self, answers: list[Any]) -> list[Any]:
        """Read answers up to the end of the request's, and append each to `answers` as it comes."""
        while True:
            try:
                kind, value = pickle.load(self._answers)  # noqa: S301  our own process
            except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
                raise WorkerDied from error
            finally:
                self._release()
            if kind == "error":
                raise value
            if kind == "end":
                return answers
            if kind == "reserve":
                self._reserve(value)
            elif kind == "call":
                self._call(*value)
            else:
                answers.append(value)

    def _reserve(self, count: int) -> None:
        granted = BUDGET.acquire(count)
        self._reserved = count if granted else 0
        self._send(pickle.dumps(None if granted else BUDGET.total))

    def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            answer = function(*arguments)
        except Exception as error:
            answer = _picklable(error)
        self._send(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))

    def _release(self) -> None:
        if self._reserved:
            BUDGET.release(self._reserved)
            self._reserved = 0


def _enlarge_pipe(pipe: int) -> None:
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


# In the child

_parent: tuple[IO[bytes], IO[bytes]] | None = None
"""Where a child asks its parent: requests and answers."""


def reserve_memory(count: int) -> int | None:
    """Ask for memory to decode a photo, in place of what was asked for before, and wait for it.

    Args:
        count: Bytes.

    Returns:
        None, or how many bytes there are at most, where they are fewer.
    """
    if _parent is None:
        return None if count <= BUDGET.total else BUDGET.total
    requests, answers = _parent
    seconds_left, _ = signal.setitimer(signal.ITIMER_REAL, 0)  # others' photos are not this one's time
    _write(answers, "reserve", count)
    limit: int | None = pickle.load(requests)  # noqa: S301  our parent
    signal.setitimer(signal.ITIMER_REAL, seconds_left)
    return limit


def call_in_parent(function: Callable[..., R], *arguments: Any) -> R:
    """Call a function in the process that this one was forked from; here, where this is none of its children.

    The time that it takes is not this photo's: no processor waits.

    Args:
        function: A function of a module.
        *arguments: Its arguments, which pickle.

    Raises:
        Exception: What the function raises.
    """
    if _parent is None:
        return function(*arguments)
    requests, answers = _parent
    seconds_left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    _write(answers, "call", (function, arguments))
    answer = pickle.load(requests)  # noqa: S301  our parent
    signal.setitimer(signal.ITIMER_REAL, seconds_left)
    if isinstance(answer, Exception):
        raise answer
    result: R = answer
    return result


def main(requests: int, answers: int) -> None:
    """Serve requests, in a process forked for it.

    Args:
        requests: File descriptor of the requests: first import path, folder and limits.
        answers: File descriptor for the answers.
    """
    with os.fdopen(requests, "rb") as stream, os.fdopen(answers, "wb") as output:
        try:
            path, folder, (cpu_seconds, wall_seconds) = pickle.load(stream)  # noqa: S301  our parent
        except (EOFError, pickle.UnpicklingError):  # it was killed before it had asked for anything
            return
        sys.path[:] = json.loads(path)
        with suppress(OSError):
            os.chdir(folder)
        global _parent
        _parent = stream, output
        serve(stream, output, lambda: _time_limit(cpu_seconds, wall_seconds))


@contextmanager
def _time_limit(cpu_seconds: int, wall_seconds: float) -> Iterator[None]:
    """Let the system end this process after so much time: by SIGXCPU, or by SIGALRM."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    with suppress(OSError, ValueError):  # a lower limit is set already
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + cpu_seconds, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no core file
    signal.setitimer(signal.ITIMER_REAL, wall_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def serve(
    requests: IO[bytes],
    answers: IO[bytes],
    limit: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Answer requests until there are no more, or a method raises.

    Args:
        requests: Pickles, one after the other: the factory, then a (method, arguments) for each call.
        answers: Gets pickles of ("answer", value) as the method gives them, each at once, then
            ("end", None), or ("error", exception) where the method raised. The factory is answered with
            ("end", None). Between them ("reserve", bytes) asks for memory, and ("call", (function,
            arguments)) for what a function returns, which the next request answers.
        limit: Gives a context in which one answer is computed.
    """
    try:
        handler = pickle.load(requests)()  # noqa: S301  from our parent
        while True:
            _write(answers, "end", None)
            method, arguments = pickle.load(requests)  # noqa: S301
            for value in _limited(lambda: getattr(handler, method)(*arguments), limit):  # noqa: B023
                _write(answers, "answer", value)
    except (EOFError, BrokenPipeError):
        return
    except BaseException as error:
        with suppress(OSError):
            _write(answers, "error", _picklable(error))


def _limited(start: Callable[[], Any], limit: Callable[[], AbstractContextManager[None]]) -> Iterator[Any]:
    """Yield from what `start` returns, each value computed within its own limit."""
    with limit():
        values = iter(start())
    while True:
        with limit():
            try:
                value = next(values)
            except StopIteration:
                return
        yield value


def _write(answers: IO[bytes], kind: str, value: object) -> None:
    pickle.dump((kind, value), answers, pickle.HIGHEST_PROTOCOL)
    answers.flush()


def _picklable(error: BaseException) -> BaseException:
    """Return the error itself, or a RuntimeError with its text where it does not survive pickling."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own
    except Exception:
        return RuntimeError(repr(error))
    return error
