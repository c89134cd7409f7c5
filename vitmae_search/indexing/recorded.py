"""A run's row in the catalogue: begun, and ended with what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, TypeVar

from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import VitmaeSearchError
from vitmae_search.records import ClassifyReport, IndexReport

R = TypeVar("R", IndexReport, ClassifyReport)


class Cancelled(Exception):
    """The person asked to stop."""


def recorded(
    catalog: CatalogWriter, run_key: str | None, kind: str, arguments: Mapping[str, Any], run: Callable[[], R]
) -> R:
    """What `run` returns. With a key the catalogue tells how it went: done, cancelled, or failed and why."""
    if run_key is None:
        return run()
    catalog.start_run(run_key, kind, arguments)
    try:
        report = run()
    except BaseException as error:
        with suppress(VitmaeSearchError):  # on a full disk there is no telling
            _finish_failed(catalog, run_key, error)
        raise
    as_json = asdict(replace(report, failures=()))  # they may be many, and the command tells them
    catalog.finish_run(run_key, "cancelled" if report.interrupted else "done", as_json)
    return report


def _finish_failed(catalog: CatalogWriter, run_key: str, error: BaseException) -> None:
    if isinstance(error, KeyboardInterrupt):
        catalog.finish_run(run_key, "cancelled")
    else:
        said = str(error) if isinstance(error, VitmaeSearchError) else repr(error)
        catalog.finish_run(run_key, "failed", error=said)
