"""A long job: its progress, its cancellation, and its row in the catalogue.

The jobs that index, classify, evaluate and adapt report to a callback, and write to the row. While one runs,
`JobListener` keeps its row's heartbeat, and asks there whether somebody wants it to end, from any machine.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar

from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import VitmaeSearchError
from vitmae_search.records import JobProgress, Phase

_PHASES_WITH_RATE = ("indexing", "classifying", "evaluating", "encoding")
_WRITE_INTERVAL = 1.0
"""Seconds between two writes of a job's progress."""
_LISTEN_INTERVAL = 1.0
"""Seconds between two looks whether somebody asked a job to end."""
_HEARTBEAT_INTERVAL = 20.0
"""Seconds between two heartbeats: each is a commit, after which others read their counts anew."""
_LAST_LOOK_SECONDS = 5.0
"""How long the end of a job waits for a look that a server does not answer."""

log = logging.getLogger(__name__)


class Cancelled(Exception):
    """The person asked to stop."""


def raise_if_cancelled(cancelled: Callable[[], bool]) -> None:
    """Raise `Cancelled` if `cancelled` says that the person asked to stop."""
    if cancelled():
        raise Cancelled


class ProgressReporter:
    """Reports a job's progress: to a callback at each step, to the catalogue once a second."""

    def __init__(
        self,
        on_progress: Callable[[JobProgress], None] | None,
        write: Callable[[Mapping[str, Any]], None] = lambda progress: None,
    ) -> None:
        """Start the clock.

        Args:
            on_progress: Called at each step.
            write: Called with the progress as plain values at each change of phase, and every second; see
                `progress_writer`.
        """
        self._on_progress = on_progress
        self._write = write
        self._started = time.monotonic()
        self._phase: Phase | None = None
        self._phase_started = self._started
        self._done_before_phase = 0
        self._written = float("-inf")

    @property
    def seconds(self) -> float:
        """Seconds since the job began."""
        return time.monotonic() - self._started

    def report(
        self,
        phase: Phase,
        done: int,
        total: int | None = None,
        *,
        failed: int = 0,
        current: str | None = None,
    ) -> None:
        """Report that `done` of `total` files are done.

        Args:
            phase: What the job is doing. The rate of files counts from the first report of a phase.
            done: Files that are done, those that failed included.
            total: All files, None while that is not known.
            failed: Files that failed.
            current: The file or folder that the job is at.
        """
        now = time.monotonic()
        new_phase = phase != self._phase
        has_rate = phase in _PHASES_WITH_RATE
        if new_phase and has_rate:
            self._phase_started, self._done_before_phase = now, done
        self._phase = phase
        seconds = now - self._phase_started
        rate = (done - self._done_before_phase) / seconds if has_rate and seconds > 0 else 0.0
        progress = JobProgress(phase, done, total, failed, now - self._started, rate, current)
        if self._on_progress is not None:
            self._on_progress(progress)
        if new_phase or now - self._written >= _WRITE_INTERVAL:
            self._written = now
            self._write(asdict(progress))


def progress_writer(catalog: CatalogWriter, run_key: str | None) -> Callable[[Mapping[str, Any]], None]:
    """Return a function that writes progress into a job's row.

    Args:
        catalog: Has the row.
        run_key: Key of the row; without one the function does nothing.
    """
    if run_key is None:
        return lambda progress: None
    return lambda progress: catalog.update_run(run_key, progress)


class JobReport(Protocol):
    """A dataclass that says what a job came to."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def interrupted(self) -> bool:
        """Whether the job was cancelled, or ended by Ctrl-C."""


class JobRows(Protocol):
    """Where the rows of jobs are written; see `CatalogWriter`."""

    def start_run(self, key: str, kind: str, arguments: Mapping[str, Any]) -> object:
        """Add a row for a job that begins.

        Args:
            key: The row's key.
            kind: The command's name.
            arguments: The command's arguments, as plain values.
        """

    def beat(self, key: str) -> None:
        """Record that a job is alive."""

    def cancel_requested(self, key: str) -> bool:
        """Return whether somebody asked a job to end."""

    def finish_run(
        self,
        key: str,
        state: Literal["done", "failed", "cancelled", "interrupted"],
        report: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """Write how a job ended.

        Args:
            key: The row's key.
            state: How it ended.
            report: What it came to, as plain values.
            error: Why it failed.
        """


class JobListener:
    """Keeps a running job's heartbeat, and listens whether it is to end, within its `with` block.

    It does so in a thread, because a job may be at a long step, such as opening a model or building an index.
    """

    def __init__(self, rows: JobRows, key: str) -> None:
        """Prepare.

        Args:
            rows: Where the job's row is.
            key: The row's key.
        """
        self._rows, self._key = rows, key
        self._cancelled, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._listen, name=f"job-{key[:8]}", daemon=True)

    def cancelled(self) -> bool:
        """Whether somebody asked the job to end."""
        return self._cancelled.is_set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join(_LAST_LOOK_SECONDS)

    def _listen(self) -> None:
        beaten = time.monotonic()
        while not self._ended.wait(_LISTEN_INTERVAL):
            try:
                if not self.cancelled() and self._rows.cancel_requested(self._key):
                    self._cancelled.set()
                    beaten = float("-inf")  # a heartbeat after the request says that it was heard
                if time.monotonic() - beaten >= _HEARTBEAT_INTERVAL:
                    self._rows.beat(self._key)
                    beaten = time.monotonic()
            except VitmaeSearchError as error:  # the server is away, say: the job's own writes will tell
                log.debug("job %s: %s", self._key, error)


R = TypeVar("R", bound=JobReport)


def run_job(
    rows: JobRows,
    run_key: str | None,
    kind: str,
    arguments: Mapping[str, Any],
    job: Callable[[Callable[[], bool]], R],
    cancelled: Callable[[], bool] | None = None,
) -> R:
    """Run a job, and write to its row how it ended: done, cancelled, or failed and why.

    Args:
        rows: Where the row is written.
        run_key: Key of the row; without one nothing is written.
        kind: The command's name.
        arguments: The command's arguments, as plain values.
        job: The job itself. It is given a function to ask often: true stops it.
        cancelled: Asked as well as the row whether to stop.

    Returns:
        The report that `job` returns. Its list of failures may be long, and is not written.
    """
    asked = cancelled or (lambda: False)
    if run_key is None:
        return job(asked)
    rows.start_run(run_key, kind, arguments)
    try:
        with JobListener(rows, run_key) as listener:
            report = job(lambda: asked() or listener.cancelled())
    except BaseException as error:
        with suppress(VitmaeSearchError):  # such as a full disk: the first error matters
            _write_failure(rows, run_key, error)
        raise
    as_json = asdict(report)
    as_json.pop("failures", None)
    rows.finish_run(run_key, "cancelled" if report.interrupted else "done", as_json)
    return report


def _write_failure(rows: JobRows, run_key: str, error: BaseException) -> None:
    if isinstance(error, KeyboardInterrupt):
        rows.finish_run(run_key, "cancelled")
    else:
        reason = str(error) if isinstance(error, VitmaeSearchError) else repr(error)
        rows.finish_run(run_key, "failed", error=reason)
