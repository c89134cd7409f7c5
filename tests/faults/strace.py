"""Kills and errors at chosen system calls, with strace."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

WRITING = (
    *("write", "pwrite64", "fsync", "fdatasync", "ftruncate"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir"),
)
"""The system calls that change files."""

_CALL = re.compile(r"(\d+) +(\w+)\((.*)")


@dataclass(frozen=True)
class Call:
    """A system call of an uninterrupted run.

    Attributes:
        name: Such as "write".
        number: Among those of this name that its thread made, from 1.
        arguments: As strace writes them, with the paths of file handles.
    """

    name: str
    number: int
    arguments: str


@functools.cache
def missing() -> str:
    """Why strace cannot be used here; empty if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "this machine does not let strace trace a process"


@contextmanager
def attached(
    pid: int, options: Sequence[str], log: Path | None = None, *, programs: bool = False
) -> Iterator[None]:
    """Trace a process and its threads.

    Args:
        pid: The process, which waits for it.
        options: Which calls, and what is injected.
        log: Where calls are written to.
        programs: Whether programs that it starts are traced, too, such as those that decode photos.
    """
    output = "/dev/null" if log is None else str(log)
    options = [*options] if programs else ["-b", "execve", *options]
    command = ["strace", "-f", "-qq", "-y", "-s", "0", "-p", str(pid), "-o", output, *options]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        yield
    finally:
        tracer.communicate(timeout=60)


def parse(log: str) -> Iterator[Call]:
    """The calls in what `attached` wrote; strace counts them by thread, and so does this.

    Args:
        log: The text.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for line in log.splitlines():
        call = _CALL.match(line)
        if call is not None:
            counts[call[1], call[2]] += 1
            yield Call(call[2], counts[call[1], call[2]], call[3])


def calls(log: str) -> Counter[str]:
    """How often each system call was made, by the thread that made the most of them.

    Args:
        log: See `parse`.
    """
    most: Counter[str] = Counter()
    for call in parse(log):
        most[call.name] = max(most[call.name], call.number)
    return most
