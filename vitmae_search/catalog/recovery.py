"""Undo what a killed writer left unfinished, on behalf of a reader, which may not.

With a rollback journal, a writer that is killed in a commit leaves the old pages in the journal. SQLite
copies them back when the file is opened next, but a read-only connection cannot. So a reader that meets such
a journal becomes the writer for a moment: it takes the lock and opens the file for writing once.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from vitmae_search.catalog.writer_lock import WriterLock
from vitmae_search.errors import LibraryBusy

_WAIT_SECONDS = 5.0
"""How long to wait for another writer, which undoes the change itself as soon as it has opened the file."""

UNFINISHED_CODES = frozenset({sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_RECOVERY})
"""SQLite's extended result codes where only a writer can bring the file into a state that can be read."""


def undo_unfinished_change(file: Path) -> None:
    """Let SQLite bring a catalogue back to its last complete transaction, under the writer's lock.

    Where another process holds the lock, it has done so by the time that this returns.

    Args:
        file: The catalogue.

    Raises:
        StorageError: The folder cannot be written.
        sqlite3.Error: The file cannot be written.
    """
    lock = WriterLock(file.parent)
    try:
        with suppress(LibraryBusy):
            lock.acquire(_WAIT_SECONDS)
            with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True)) as connection:
                connection.execute("PRAGMA schema_version").fetchall()
    finally:
        lock.release()
