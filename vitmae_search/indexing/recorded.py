"""A run's row in the catalogue: begun, and ended with what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from vitmae_search.errors import VitmaeSearchError


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
