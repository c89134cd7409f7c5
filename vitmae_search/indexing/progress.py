"""Telling others how far a run is: a callback at each step, the catalogue at most once a second.

A run's row in the catalogue: begun, and ended with what came of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import VitmaeSearchError
from vitmae_search.records import IndexProgress

Phase = Literal[
    "scanning", "indexing", "classifying", "evaluating", "encoding", "training", "finishing", "done"
]
WORKING = ("indexing", "classifying", "evaluating", "encoding")
_RECORD_EVERY = 1.0


def record_in_run(catalog: CatalogWriter, run_key: str | None) -> Callable[[Mapping[str, Any]], None]:
    """Write progress into the run's row; without a key, nowhere."""
    if run_key is None:
        return lambda progress: None
    return lambda progress: catalog.update_run(run_key, progress)


class ProgressTeller:
    """`show` is called at each step, `record` (a write to disk) seldom and at each change of phase."""

    def __init__(
        self, show: Callable[[IndexProgress], None] | None, record: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self._show = show
        self._record = record
        self._started = time.monotonic()
        self._working = self._started
        self._before = 0
        self._recorded = float("-inf")
        self._phase: Phase | None = None

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._started

    def tell(
        self,
        phase: Phase,
        done: int,
        total: int | None = None,
        *,
        failed: int = 0,
        current: str | None = None,
    ) -> None:
        """Say that `done` of `total` files are dealt with. The rate counts from the phase's first word."""
        now = time.monotonic()
        new_phase = phase != self._phase
        working_now = phase in WORKING
        if working_now and new_phase:
            self._working, self._before = now, done
        self._phase = phase
        working = now - self._working
        rate = (done - self._before) / working if working_now and working > 0 else 0.0
        moment = IndexProgress(phase, done, total, failed, now - self._started, rate, current)
        if self._show is not None:
            self._show(moment)
        if new_phase or now - self._recorded >= _RECORD_EVERY:
            self._recorded = now
            self._record(asdict(moment))


class Report(Protocol):
    """A dataclass that says what a run came to."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def interrupted(self) -> bool: ...


class RunRows(Protocol):
    """Where the row is kept; see `CatalogWriter`."""

    def start_run(self, key: str, kind: str, arguments: Mapping[str, Any]) -> object: ...

    def finish_run(
        self,
        key: str,
        state: Literal["done", "failed", "cancelled", "interrupted"],
        report: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None: ...


R = TypeVar("R", bound=Report)


class Cancelled(Exception):
    """The person asked to stop."""


def recorded(
    rows: RunRows, run_key: str | None, kind: str, arguments: Mapping[str, Any], run: Callable[[], R]
) -> R:
    """What `run` returns. With a key the catalogue tells how it went: done, cancelled, or failed and why."""
    if run_key is None:
        return run()
    rows.start_run(run_key, kind, arguments)
    try:
        report = run()
    except BaseException as error:
        with suppress(VitmaeSearchError):  # on a full disk there is no telling
            _finish_failed(rows, run_key, error)
        raise
    as_json = asdict(report)
    as_json.pop("failures", None)  # they may be many, and the command tells them
    rows.finish_run(run_key, "cancelled" if report.interrupted else "done", as_json)
    return report


def _finish_failed(rows: RunRows, run_key: str, error: BaseException) -> None:
    if isinstance(error, KeyboardInterrupt):
        rows.finish_run(run_key, "cancelled")
    else:
        said = str(error) if isinstance(error, VitmaeSearchError) else repr(error)
        rows.finish_run(run_key, "failed", error=said)
