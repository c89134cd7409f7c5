"""Long jobs: child processes that run a command, and the `runs` rows that say how they go.

A child runs the same command that a person would type, and writes its own progress into the catalogue's
`runs` row, so it outlives the page or program that started it.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from vitmae_search.catalog import CatalogWriter, JobTable, make_library_folder
from vitmae_search.errors import LibraryError, StorageError, display_path
from vitmae_search.indexing.job import JobReport, run_job
from vitmae_search.records import JobProgress, JobRecord
from vitmae_search.settings import CATALOG, catalog_address, environment_without_password, settings

START_TIMEOUT = 20.0
"""Seconds until a child's row should be in the catalogue: the child imports, and waits for the lock."""

FINISH_TIMEOUT = 3600.0
"""Seconds that a finished job waits for the library's lock, to record how it ended."""

# With our own import path; `python -m` would put the current folder first.
_CHILD_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from vitmae_search.cli.main import main; main()"
)

PROGRESS_SECONDS = 3.0
"""How often a job that does not hold the library's lock writes its progress."""

log = logging.getLogger(__name__)

R = TypeVar("R", bound=JobReport)


def start(
    library: Path, command: str, arguments: Sequence[str], *, catalog: str | None = None
) -> tuple[str, subprocess.Popen[bytes]]:
    """Start `vitmae-search COMMAND` in a child process, and return at once.

    The child has a session of its own, so closing the terminal or the app does not end it.

    Args:
        library: The folder of the library that it works on.
        command: The command's name, such as "index".
        arguments: The further words of its command line.
        catalog: The address of its catalogue; None is the file in the folder. The child is told in its
            environment, as others may read its command line.

    Returns:
        The key of its run, and its process.

    Raises:
        StorageError: The log file cannot be written, or the process cannot be started.
    """
    key = uuid.uuid4().hex
    log_file = log_path(library, key)
    try:
        make_library_folder(library, with_catalogue=catalog is None)
        log_file.parent.mkdir(exist_ok=True)
        with log_file.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  our own command, arguments as a list
                [
                    *(sys.executable, "-P", "-c", _CHILD_CODE, json.dumps(_import_path())),
                    *(command, "--library", os.fspath(library), "--run-key", key),
                    *arguments,
                ],
                env={**environment_without_password(), **({CATALOG: catalog} if catalog else {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:
        raise StorageError(f"cannot start a job in {display_path(library)}: {error.strerror}") from error
    # Reap it when it ends: a zombie would look like a process that is still running.
    threading.Thread(target=process.wait, name=f"run-{key[:8]}", daemon=True).start()
    return key, process


def wait_until_recorded(
    library: Path, key: str, process: subprocess.Popen[bytes], is_recorded: Callable[[], bool]
) -> None:
    """Wait until a child's row is in the catalogue, `START_TIMEOUT` seconds at most.

    Args:
        library: The library's folder.
        key: The key of the child's run.
        process: The child.
        is_recorded: Whether the row is there.

    Raises:
        LibraryError: The child failed before that, with the last line of its log.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while not is_recorded() and time.monotonic() < deadline:
        if process.poll() not in (None, 0):
            raise LibraryError(last_log_line(library, key))
        time.sleep(0.05)


def last_log_line(library: Path, key: str) -> str:
    """The last line that a child wrote to stderr, which says why it failed.

    Args:
        library: The library's folder.
        key: The key of the child's run.
    """
    try:
        lines = log_path(library, key).read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1].removeprefix("error: ") if lines else "the job ended without a word"


def log_path(library: Path, key: str) -> Path:
    """The file that a child's stderr goes to.

    Args:
        library: The library's folder.
        key: The key of the child's run.
    """
    return library / "runs" / f"{key}.log"


def cancel(library: Path, job: JobRecord, *, catalog: str | None = None) -> None:
    """Ask a running job to stop after its batch, on whichever machine it runs. What is finished is kept.

    Args:
        library: The library's folder.
        job: The job.
        catalog: The address of its catalogue; None is the file in the folder.

    Raises:
        LibraryError: It has ended.
        LibraryBusy: A long change of the catalogue is being written; ask again.
        StorageError: This user may not write to the catalogue.
    """
    if job.state != "running":
        raise LibraryError(f"this run is {job.state} already")
    with JobTable.open(library, catalog) as table:
        table.request_cancel(job.key)


def recorded_job(
    library: Path | None,
    run_key: str | None,
    kind: str,
    arguments: Mapping[str, Any],
    run: Callable[[Callable[[], bool]], R],
    cancelled: Callable[[], bool],
    *,
    catalog: str | None = None,
) -> R:
    """Call `run`, and record how it went in a `runs` row of the library.

    The library's lock is held only while the row is begun and ended: others can write to it meanwhile.

    Args:
        library: The library's folder; None is the environment's.
        run_key: The row's key. None records nothing.
        kind: What is run, such as "pretrain".
        arguments: What it was given, as plain JSON.
        run: The job. It is given a function to ask often: true stops it.
        cancelled: Asked as well as the row whether to stop.
        catalog: The address of the library's catalogue; None is the environment's, else its file.

    Returns:
        What `run` returns.

    Raises:
        LibraryBusy: Another process writes to the library as the job begins.
    """
    with _RowsWithoutLock(library or settings().library, catalog) as rows:
        return run_job(rows, run_key, kind, arguments, run, cancelled)


def recorded_in_background(
    library: Path,
    run_key: str | None,
    kind: str,
    arguments: Mapping[str, Any],
    run: Callable[[Callable[[JobProgress], None], Callable[[], bool]], R],
    cancelled: Callable[[], bool] | None = None,
    *,
    catalog: str | None = None,
) -> R:
    """Call `run`, and record how it goes in a `runs` row, as `recorded_job` does.

    Args:
        library: The library's folder.
        run_key: The row's key. None records nothing.
        kind: What is run, such as "map".
        arguments: What it was given, as plain JSON.
        run: The work; it is given a function to call with its progress, and one to ask whether to stop.
        cancelled: Asked as well as the row whether to stop.
        catalog: The address of the library's catalogue; None is the environment's, else its file.

    Returns:
        What `run` returns.

    Raises:
        LibraryBusy: Another process writes to the library as the work begins.
    """
    written = 0.0
    with _RowsWithoutLock(library, catalog) as rows:

        def write(progress: JobProgress) -> None:
            nonlocal written
            if run_key is not None and time.monotonic() - written >= PROGRESS_SECONDS:
                written = time.monotonic()
                rows.update_run(run_key, asdict(progress))

        return run_job(rows, run_key, kind, arguments, lambda stop: run(write, stop), cancelled)


class _RowsWithoutLock:
    """The `runs` rows of jobs that leave the library to others: the lock is held to begin and to end one."""

    def __init__(self, folder: Path, catalog: str | None) -> None:
        self._folder = folder
        self._address = catalog or catalog_address()
        self._table: JobTable | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._table is not None:
            self._table.close()

    def start_run(self, key: str, kind: str, arguments: Mapping[str, Any]) -> None:
        with CatalogWriter.open_writer(self._folder, self._address) as writer:
            writer.start_run(key, kind, arguments)
        self._table = JobTable.open(self._folder, self._address)

    def beat(self, key: str) -> None:
        """Record that a job is alive."""
        self._begun().beat(key)

    def cancel_requested(self, key: str) -> bool:
        """Return whether somebody asked a job to end."""
        return self._begun().cancel_requested(key)

    def update_run(self, key: str, progress: Mapping[str, Any]) -> None:
        """Write the progress, unless that takes long just now."""
        with suppress(LibraryError):
            self._begun().update_run(key, progress)

    def finish_run(
        self,
        key: str,
        state: Literal["done", "failed", "cancelled", "interrupted"],
        report: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        try:
            with CatalogWriter.open_writer(self._folder, self._address, wait=FINISH_TIMEOUT) as writer:
                writer.finish_run(key, state, report, error)
        except LibraryError as failed:  # the job itself is done
            log.warning("the library does not know how the job ended: %s", failed)

    def _begun(self) -> JobTable:
        assert self._table is not None
        return self._table


def _import_path() -> list[str]:
    return [os.path.abspath(entry) for entry in sys.path]
