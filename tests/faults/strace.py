"""Kills and errors at chosen system calls, with strace."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

WRITING = (
    *("write", "pwrite64", "fsync", "fdatasync", "ftruncate"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat"),
)
"""The system calls that change files."""

_CALL = re.compile(r"(\d+) +(\w+)\(")


@functools.cache
def missing() -> str:
    """Why strace cannot be used here; empty if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "this machine does not let strace trace a process"


@contextmanager
def attached(pid: int, options: Sequence[str], log: Path | None = None) -> Iterator[None]:
    """Trace a process, its threads and children.

    Args:
        pid: The process, which waits for it.
        options: Which calls, and what is injected.
        log: Where calls are written to.
    """
    output = "/dev/null" if log is None else str(log)
    command = ["strace", "-f", "-qq", "-y", "-s", "0", "-p", str(pid), "-o", output, *options]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        yield
    finally:
        tracer.communicate(timeout=60)


def calls(log: Path) -> Counter[str]:
    """How often each system call was made, by the thread that made the most of them.

    strace counts per thread, so that a call with a higher number is never reached.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for line in log.read_text("utf-8", "replace").splitlines():
        call = _CALL.match(line)
        if call is not None:
            counts[call[1], call[2]] += 1
    most: Counter[str] = Counter()
    for (_, name), count in counts.items():
        most[name] = max(most[name], count)
    return most
