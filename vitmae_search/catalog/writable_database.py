"""The one read-write connection: taken with the lock, given back with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection

from vitmae_search.catalog.database import (
    Database,
    WriterLock,
    catalogue_file,
    checkpoint,
    connected,
    on_network_drive,
    outside_transactions,
    set_journal,
    writing_engine,
)
from vitmae_search.catalog.deferred_signals import DeferredSignals
from vitmae_search.catalog.migrations import migrate, version_of
from vitmae_search.errors import LibraryError, StorageError, display_path

WAIT_SECONDS = 2.0
"""How long to wait for another writer before giving up."""


class WritableDatabase(Database):
    """A catalogue file that this process alone may change, until `close`."""

    def __init__(self, folder: Path, wait: float = WAIT_SECONDS) -> None:
        """Make the folder, take the lock, and make the file or bring it up to date."""
        folder = folder.absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{display_path(folder)} cannot be made: {error.strerror}.") from error
        self._lock = WriterLock(folder)
        self._lock.acquire(wait)
        # Threads take turns: a connection has one transaction at a time.
        self._turn = threading.Lock()
        self._closed = False
        self._writing = writing_engine(catalogue_file(folder))
        try:
            self._prepare(folder)
            super().__init__(folder)
        except BaseException:
            self._let_go()
            raise

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """The connection, in one transaction: kept wholly, or after an error not at all."""
        with self._turn:
            if self._closed:
                raise LibraryError(f"{self.name} has been closed.")
            with connected(self._writing) as connection, connection.begin():
                yield connection

    def close(self) -> None:
        """Fold the log into the file, close all connections and free the lock."""
        super().close()
        with self._turn, DeferredSignals():
            if not self._closed:
                checkpoint(self._writing)
                self._let_go()

    def _prepare(self, folder: Path) -> None:
        with DeferredSignals():
            # Looked at first: another program's file is not touched, not even its journal.
            with outside_transactions(self._writing) as connection:
                version = version_of(connection, display_path(catalogue_file(folder)))
                set_journal(connection, on_network_drive(folder))
            with self._writing.connect() as connection:
                migrate(connection, version)

    def _let_go(self) -> None:
        self._closed = True
        try:
            self._writing.dispose()
        finally:
            self._lock.release()
