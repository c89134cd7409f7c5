"""Long jobs as child processes that run the same command a person would type.

A child writes its own progress into the catalogue's `runs` row, so it outlives the page that started it.

The `runs` rows of trainings, which leave the library to others: its lock is held only to write the row.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import LibraryError, StorageError, display_path
from vitmae_search.indexing.progress import Report, recorded
from vitmae_search.records import Run
from vitmae_search.settings import settings

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


log = logging.getLogger(__name__)

END_SECONDS = 3600.0
"""How long a training that is over waits for whoever writes, to say so."""

R = TypeVar("R", bound=Report)


def recorded_training(
    library: Path | None, run_key: str | None, kind: str, arguments: Mapping[str, Any], run: Callable[[], R]
) -> R:
    """What `run` returns; with a key a row of `library` (default: the environment's) tells how it went.

    Raises what `run` does, and `LibraryBusy` where another process writes as it begins.
    """
    return recorded(_BriefRows(library or settings().library), run_key, kind, arguments, run)


class _BriefRows:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start_run(self, key: str, kind: str, arguments: Mapping[str, Any]) -> None:
        with CatalogWriter.open_writer(self._folder) as writer:
            writer.start_run(key, kind, arguments)

    def finish_run(
        self,
        key: str,
        state: Literal["done", "failed", "cancelled", "interrupted"],
        report: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        try:
            with CatalogWriter.open_writer(self._folder, wait=END_SECONDS) as writer:
                writer.finish_run(key, state, report, error)
        except LibraryError as unsaid:  # the training itself is done, and its folder tells of it
            log.warning("the library does not know how the training ended: %s", unsaid)
