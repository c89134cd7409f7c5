"""The `runs` rows of trainings, which leave the library to others: its lock is held only to write the row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import LibraryError
from vitmae_search.indexing.recorded import Report, recorded
from vitmae_search.settings import settings

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
