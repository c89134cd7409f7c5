"""Wait for changes in photo folders, with the optional package watchfiles."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vitmae_search.catalog.sqlite import on_network_drive
from vitmae_search.errors import LibraryBusy, LibraryError
from vitmae_search.photos.scan import is_under
from vitmae_search.records import IndexReport, WatchReport

POLL_SECONDS = 10
"""How often folders are looked through that do not report their changes, as on network drives."""


def changes(folders: Sequence[str], cancelled: Callable[[], bool]) -> Iterator[None]:
    """Yield once at first, when watching has begun, and then after each burst of changes, until cancelled.

    Changes while the caller works are kept, and yielded next.

    Args:
        folders: Folders that are there, absolute.
        cancelled: Asked at least twice a second.

    Raises:
        LibraryError: watchfiles is not installed, or a folder cannot be watched.
    """
    try:
        import watchfiles
    except ImportError:
        raise LibraryError("watching needs a package more: pip install 'vitmae-search[watch]'") from None
    polling = any(on_network_drive(Path(folder)) for folder in folders)
    try:
        found = watchfiles.watch(
            *folders,
            watch_filter=lambda change, path: not _is_hidden(path, folders),
            rust_timeout=500,
            yield_on_timeout=True,
            force_polling=polling,
            poll_delay_ms=1000 * POLL_SECONDS,
            ignore_permission_denied=True,
        )
        begun = False
        for changed in found:
            if cancelled():
                return
            if changed or not begun:
                begun = True
                yield
    except OSError as error:
        raise LibraryError(f"the folders cannot be watched: {error.strerror or error}") from error


def watch_folders(
    folders: Sequence[str],
    index: Callable[[], IndexReport],
    on_report: Callable[[IndexReport], None],
    cancelled: Callable[[], bool],
) -> WatchReport:
    """Index folders after each burst of changes, until cancelled; see `Library.watch`.

    Args:
        folders: Folders that are there, absolute.
        index: Indexes them.
        on_report: Called after each run.
        cancelled: Asked at least twice a second.
    """
    found = WatchReport()
    for _ in changes(folders, cancelled):
        while not cancelled():
            try:
                report = index()
            except LibraryBusy:
                time.sleep(0.5)
                continue
            found = WatchReport(
                found.runs + 1,
                found.added + report.added,
                found.updated + report.updated,
                found.moved + report.moved,
                found.missing + report.missing,
                report.interrupted,
            )
            on_report(report)
            break
    return found


def _is_hidden(path: str, folders: Sequence[str]) -> bool:
    """Whether a path has a hidden part below the watched folder, which `index` does not look at."""
    for folder in folders:
        if is_under(path, folder):
            below = path[len(folder) :].split(os.sep)
            return any(part.startswith(".") for part in below)
    return False
