"""Runs commands of the application in processes that are forked from one which has imported everything.

A command then costs a fork instead of the start of an interpreter, so that hundreds of them can be killed in
minutes. Each begins as a command of a person does: no library is open, nothing is cached.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HUNG_SECONDS = 120.0

PRELOADED = (
    "faiss", "filelock", "matplotlib", "numpy", "PIL.Image", "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin", "pillow_heif", "platformdirs", "psutil",
    "rich.progress", "safetensors.numpy", "sqlalchemy.dialects.sqlite",
    "vitmae_search.catalog", "vitmae_search.cli.adapt", "vitmae_search.cli.check",
    "vitmae_search.cli.classify", "vitmae_search.cli.index", "vitmae_search.cli.progress",
    "vitmae_search.cli.prune", "vitmae_search.cli.search", "vitmae_search.cli.spaces",
    "vitmae_search.cli.status", "vitmae_search.cli.stop_signal", "vitmae_search.evaluation",
    "vitmae_search.library", "vitmae_search.library.adapt.fit", "vitmae_search.library.adapt.save",
    "vitmae_search.vectors.tune", "tests.faults.broken_variants",
)  # fmt: skip


@dataclass(frozen=True)
class Done:
    """How a command ended.

    Attributes:
        code: The exit code; minus the signal's number where one killed it.
        out: What it wrote to stdout.
        err: What it wrote to stderr.
        megabytes: Most memory that it, or a process that it waited for, had at a time.
    """

    code: int
    out: str
    err: str
    megabytes: int = 0

    @property
    def json(self) -> dict[str, Any]:
        """The object on stdout."""
        value: dict[str, Any] = json.loads(self.out)
        return value


class ForkServer:
    """The process that forks; one command at a time."""

    def __init__(self, folder: Path) -> None:
        """Start it.

        Args:
            folder: For what commands print.
        """
        root = Path(__file__).parents[2]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([os.fspath(root), *filter(None, sys.path)]),
            # Threads of a library would not survive the fork.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._folder = folder
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.fork_server"],
            cwd=root,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = 0

    def start(
        self,
        arguments: Sequence[str | os.PathLike[str]],
        environment: Mapping[str, str],
        *,
        patches: Sequence[str] = (),
        traced: bool = False,
    ) -> int:
        """Begin a command, and return its process id.

        Args:
            arguments: Of `vitmae-search`.
            environment: Further variables.
            patches: Names of functions of `broken_variants`, called first.
            traced: Whether it waits until a debugger is attached.
        """
        request = {
            "arguments": [os.fspath(argument) for argument in arguments],
            "environment": dict(environment),
            "patches": list(patches),
            "traced": traced,
            "output": os.fspath(self._folder),
        }
        [self.pid] = self._ask(request)
        return self.pid

    def wait(self) -> Done:
        """Wait for the command's end. One that takes longer than `HUNG_SECONDS` is killed."""
        code, megabytes = self._ask({"wait": self.pid})
        out, err = (
            (self._folder / name).read_text("utf-8", "surrogateescape") for name in ("stdout", "stderr")
        )
        return Done(code, out, err, megabytes)

    def run(
        self,
        arguments: Sequence[str | os.PathLike[str]],
        environment: Mapping[str, str],
        *,
        patches: Sequence[str] = (),
    ) -> Done:
        """Run a command to its end; see `start`."""
        self.start(arguments, environment, patches=patches)
        return self.wait()

    def close(self) -> None:
        """End the process."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: Mapping[str, Any]) -> list[int]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return [int(word) for word in self._server.stdout.readline().split()]


def serve() -> None:
    """Fork for each line on stdin, until there are no more."""
    for name in PRELOADED:
        importlib.import_module(name)
    _warm_up()
    requests, answers = os.dup(0), os.fdopen(os.dup(1), "w", buffering=1)
    empty = os.open(os.devnull, os.O_RDWR)
    os.dup2(empty, 0)
    os.dup2(empty, 1)
    with os.fdopen(requests) as lines:
        while line := lines.readline():
            request = json.loads(line)
            if "wait" in request:
                answers.write("{} {}\n".format(*_wait(request["wait"])))
                continue
            pid = os.fork()
            if pid == 0:
                lines.close()
                answers.close()
                code = _run(request)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)  # an interpreter's whole end takes longer than the command
            answers.write(f"{pid}\n")


def _warm_up() -> None:
    """Compile the statements that most commands begin with."""
    from vitmae_search.catalog import CatalogWriter

    with tempfile.TemporaryDirectory() as folder, CatalogWriter.open_writer(Path(folder)) as catalog:
        catalog.status()


def _run(request: Mapping[str, Any]) -> int:
    os.setsid()
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(Path(request["output"], name), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.environ.update(request["environment"])
    from tests.faults import broken_variants
    from vitmae_search.cli.main import run

    for name in request["patches"]:
        getattr(broken_variants, name)()
    while request["traced"] and not _is_traced():
        time.sleep(0.001)
    return run(request["arguments"])


def _is_traced() -> bool:
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        return not any(line.split() == ["TracerPid:", "0"] for line in lines)


def _wait(pid: int) -> tuple[int, int]:
    """The exit code, and megabytes. What the command has started and left behind is killed with it."""
    end = time.monotonic() + HUNG_SECONDS
    while (found := os.wait4(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        time.sleep(0.002)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(found[1]), found[2].ru_maxrss // 1024


if __name__ == "__main__":
    serve()
