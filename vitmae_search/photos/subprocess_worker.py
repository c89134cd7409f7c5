"""This Python once more, with one of our modules to run, spoken to through pipes.

It never runs the program's own `__main__` again, as `multiprocessing` would, and it ends when its pipe does,
however this process ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from typing import IO

_COMMAND = (
    "import importlib, json, os, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "os.putenv('OPENBLAS_NUM_THREADS', '1'); "
    "importlib.import_module(sys.argv.pop(1)).main()"
)


def start(module: str) -> subprocess.Popen[bytes]:
    """A process in which the `main` of `module` runs, with pipes to and from it. Raises OSError."""
    places = json.dumps([os.path.abspath(entry) for entry in sys.path])
    return subprocess.Popen(  # noqa: S603  our own command
        [sys.executable, "-P", "-c", _COMMAND, places, module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,  # a terminal's Ctrl-C is for this process, which ends the others
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End it, whatever it is at."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError):
        process.stdin.close()
    process.kill()
    process.wait()
    process.stdout.close()


def pipes() -> tuple[IO[bytes], IO[bytes]]:
    """In such a process: requests, and answers. From then on what anybody prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return sys.stdin.buffer, answers
