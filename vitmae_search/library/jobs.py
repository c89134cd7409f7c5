"""Long jobs as child processes that run the same command a person would type.

A child writes its own progress into the catalogue's `runs` row, so it outlives the page that started it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path

from vitmae_search.errors import LibraryError, StorageError, display_path
from vitmae_search.records import Run

START_SECONDS = 20.0
"""How long a child may take until its row is in the catalogue: it imports, and waits for the lock."""

# Our own import path, and not the folder that this process happens to be in, as `-m` would have it.
_COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from vitmae_search.cli.main import main; main()"
)


def log_path(library: Path, key: str) -> Path:
    """Where the child's stderr goes."""
    return library / "runs" / f"{key}.log"


def start(library: Path, command: str, arguments: Sequence[str]) -> tuple[str, subprocess.Popen[bytes]]:
    """Start `vitmae-search COMMAND` on `library` and return its run key and process at once.

    The child is in a session of its own: closing the terminal or the app does not end it.
    """
    key = uuid.uuid4().hex
    log = log_path(library, key)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  our own command, arguments as a list
                [
                    *(sys.executable, "-P", "-c", _COMMAND, json.dumps(_import_path())),
                    *(command, "--library", os.fspath(library), "--run-key", key),
                    *arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:
        raise StorageError(f"cannot start a job in {display_path(library)}: {error.strerror}") from error
    # Reap it when it ends, so that a finished child does not stay as a zombie that looks alive.
    threading.Thread(target=process.wait, name=f"run-{key[:8]}", daemon=True).start()
    return key, process


def _import_path() -> list[str]:
    return [os.path.abspath(entry) for entry in sys.path]


def last_words(library: Path, key: str) -> str:
    """The last line that the child wrote, for a child that ended before its row was there."""
    try:
        lines = log_path(library, key).read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1].removeprefix("error: ") if lines else "the job ended without a word"


def cancel(run: Run) -> None:
    """Ask a running job to stop after its batch. What is finished is kept.

    Raises `LibraryError` where it has ended, or is another machine's or another user's.
    """
    if run.state != "running":
        raise LibraryError(f"this run is {run.state} already")
    if run.host != socket.gethostname():  # the number is another process's here
        raise LibraryError(f"this run is on the machine {run.host}; stop it there")
    try:
        os.kill(run.pid, signal.SIGTERM)
    except ProcessLookupError:
        raise LibraryError("this run has just ended") from None
    except PermissionError:
        raise LibraryError("this run belongs to another user of this machine") from None
