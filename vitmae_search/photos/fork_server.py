"""A process that forks the workers which decode photos: each is ready in milliseconds.

A new interpreter imports NumPy and Pillow for 0.2 s. This one does it once, has no other thread, and then
forks: its children share that memory, and start with no plugin loaded. A child gets the pipes that it speaks
through, and ends when they close, however its parent ends. `multiprocessing` has a fork server, too, but one
that runs the program's own `__main__` again in each child.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

_COMMAND = (
    "import importlib, json, os, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "os.putenv('OPENBLAS_NUM_THREADS', '1'); "  # no other thread may run where it forks
    f"importlib.import_module({__name__!r}).main()"
)
_PRELOADED = ("vitmae_search.photos.photo_processes", "vitmae_search.photos.worker_process")
"""What children need; the second has their main function."""
_EXIT_SECONDS = 5.0
"""How long the server may take to end once its socket is closed."""
_POLL_SECONDS = 0.1
_NUMBER = struct.Struct("i")
_FILES = 4
"""Files that a child gets: its requests, its answers, where its exit status goes, and its stderr."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's names for parameters of `mallopt`."""
_KEPT_BYTES = 1 << 25
"""Memory that a child keeps between photos: those of cameras, decoded for a model, take less."""
_KILLED_FIRST = b"1000"
"""Of Linux's two thousand steps from never (-1000) to first, where memory is so short that it ends one."""


class ForkedProcess:
    """A child of the server, as `subprocess.Popen` shows a child of one's own.

    Attributes:
        pid: Its id.
        returncode: As of `Popen`; None while it runs.
    """

    def __init__(self, status: int) -> None:
        """Wait until it is forked.

        Args:
            status: File descriptor from which the server's words come, which becomes this object's.

        Raises:
            OSError: It could not be forked.
        """
        self._status: int | None = status
        self._lock = threading.Lock()
        self.returncode: int | None = None
        try:
            self.pid = self._read()
            if self.pid <= 0:
                raise OSError(-self.pid, os.strerror(-self.pid))
        except BaseException:
            self._close()
            raise

    def poll(self) -> int | None:
        """The return code, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; return its return code.

        Raises:
            subprocess.TimeoutExpired: It runs on.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                if self.returncode is not None:
                    return self.returncode
                assert self._status is not None
                if select.select([self._status], [], [], 0)[0]:
                    self.returncode = self._exit_code()
                    self._close()
                    return self.returncode
                status = self._status
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired("a worker that decodes photos", timeout or 0)
            # Another thread may read and close it meanwhile, and another file get its number.
            with suppress(OSError, ValueError):
                select.select([status], [], [], _POLL_SECONDS if left is None else min(left, _POLL_SECONDS))

    def kill(self) -> None:
        """End it, if it runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _exit_code(self) -> int:
        try:
            return self._read()
        except OSError:  # the server is gone, and nobody knows
            return -signal.SIGKILL

    def _read(self) -> int:
        assert self._status is not None
        data = os.read(self._status, _NUMBER.size)
        if len(data) < _NUMBER.size:
            raise OSError("the process that starts workers has ended")
        number: int = _NUMBER.unpack(data)[0]
        return number

    def _close(self) -> None:
        assert self._status is not None
        os.close(self._status)
        self._status = None


class ForkServer:
    """The server's side of this process: starts it when it is needed, and again if it has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self, *modules: str) -> None:
        """Start the server, if it does not run, and do not wait for it.

        Args:
            *modules: Names of modules that children will import, which it imports once for all of them.

        Raises:
            OSError: No process can be started.
        """
        with self._lock:
            self._launch(*modules)

    def fork(self, requests: int, answers: int) -> ForkedProcess:
        """Fork a child. Both file descriptors stay the caller's to close.

        Args:
            requests: Where the child reads.
            answers: Where it writes.

        Raises:
            OSError: No process can be started.
        """
        with self._lock:
            try:
                return self._fork(requests, answers)
            except OSError:  # it may have been killed
                self._close()
                return self._fork(requests, answers)

    def close(self) -> None:
        """End the server. Children of it go on."""
        with self._lock:
            self._close()

    def forget(self) -> None:
        """Leave the server to the process that this one was forked from."""
        if self._process is not None:
            self._process.returncode = 0  # so that nothing warns that it still runs
        self.__init__()  # type: ignore[misc]

    def _fork(self, requests: int, answers: int) -> ForkedProcess:
        connection = self._launch()
        status, theirs = os.pipe()
        try:
            with _errors() as errors:
                socket.send_fds(connection, [b"+"], [requests, answers, theirs, errors.fileno()])
        except BaseException:
            os.close(status)
            raise
        finally:
            os.close(theirs)
        return ForkedProcess(status)

    def _launch(self, *modules: str) -> socket.socket:
        if self._socket is not None:
            return self._socket
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603  our own command
                    [sys.executable, "-P", "-c", _COMMAND, import_path(), *modules],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    process_group=0,  # Ctrl-C in a terminal goes to this process alone
                )
        except BaseException:
            ours.close()
            raise
        self._socket = ours
        return ours

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            try:
                self._process.wait(_EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


FORK_SERVER = ForkServer()
"""The one of this process."""
atexit.register(FORK_SERVER.close)
os.register_at_fork(after_in_child=FORK_SERVER.forget)


def import_path() -> str:
    """Where this process imports from, as JSON."""
    return json.dumps([os.path.abspath(path) for path in sys.path])


def _errors() -> IO[bytes]:
    """A stderr for a child: this process's, where it has one."""
    with suppress(OSError):
        return os.fdopen(os.dup(2), "wb")
    return Path(os.devnull).open("wb")


# In the server


def main() -> None:
    """Fork a child for each message on stdin, a socket, until it closes; report each child's exit status."""
    for name in (*sys.argv[1:], *_PRELOADED):
        module = importlib.import_module(name)
    gc.freeze()  # what was imported stays in memory that is shared
    _keep_freed_memory()
    requests = socket.socket(fileno=os.dup(0))
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    statuses: dict[int, int] = {}  # by process id, where its exit status is awaited
    while True:
        ready = select.select([requests.fileno(), woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            _reap(statuses)
        if requests.fileno() in ready:
            message, files, _, _ = socket.recv_fds(requests, 1, _FILES)
            if not message:
                return
            _fork_child(files, statuses, [requests.fileno(), woken, wake], module.main)


def _keep_freed_memory() -> None:
    """Let children use the memory of one photo again for the next, where glibc would give it back."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


def _fork_child(
    files: list[int], statuses: dict[int, int], own: list[int], child_main: Callable[[int, int], None]
) -> None:
    requests, answers, status, errors = files
    try:
        child = os.fork()
    except OSError as error:
        child = -(error.errno or 1)
    if child == 0:
        _run_child(requests, answers, errors, [*own, status, *statuses.values()], child_main)
    with suppress(OSError):  # nobody waits any more
        os.write(status, _NUMBER.pack(child))
    for file in (requests, answers, errors):
        os.close(file)
    if child > 0:
        statuses[child] = status
    else:
        os.close(status)


def _run_child(
    requests: int, answers: int, errors: int, others: list[int], child_main: Callable[[int, int], None]
) -> None:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for file in others:
            os.close(file)
        with suppress(OSError):  # Linux alone has it
            Path("/proc/self/oom_score_adj").write_bytes(_KILLED_FIRST)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(errors, 1)  # what a plugin prints
        os.dup2(errors, 2)
        child_main(requests, answers)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _reap(statuses: dict[int, int]) -> None:
    with suppress(ChildProcessError):
        while True:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                return
            report = statuses.pop(child)
            with suppress(OSError):
                os.write(report, _NUMBER.pack(os.waitstatus_to_exitcode(status)))
            os.close(report)
