"""A catalogue file that is opened for writing: under the writer's lock, or for rows of jobs only."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from vitmae_search.catalog.database import connect, forget_versions
from vitmae_search.catalog.deferred_signals import DeferredSignals
from vitmae_search.catalog.migrations import migrate, version_of
from vitmae_search.catalog.sqlite import (
    SqliteDatabase,
    autocommit_connection,
    catalogue_file,
    checkpoint,
    job_rows_engine,
    on_network_drive,
    set_journal,
    writing_engine,
)
from vitmae_search.catalog.writer_lock import WriterLock
from vitmae_search.errors import LibraryError, StorageError, display_path

T = TypeVar("T")

WAIT_SECONDS = 2.0
"""How long to wait for another writer before giving up."""


def make_library_folder(folder: Path, *, with_catalogue: bool = True) -> None:
    """Make a library's folder, which nobody else can look into; one that is there stays as it is.

    Args:
        folder: The folder.
        with_catalogue: Make an empty file for the catalogue in it.

    Raises:
        StorageError: It cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        if with_catalogue:
            os.close(os.open(catalogue_file(folder), os.O_CREAT | os.O_WRONLY, 0o600))
    except FileExistsError:
        if not folder.is_dir():
            raise StorageError(f"{display_path(folder)} cannot be made: it is a file.") from None
    except OSError as error:
        raise StorageError(f"{display_path(folder)} cannot be made: {error.strerror}.") from error


class WritableSqliteDatabase(SqliteDatabase):
    """A catalogue file that only this process may change, until `close`."""

    def __init__(self, folder: Path, wait: float = WAIT_SECONDS) -> None:
        """Create the folder, take the lock, and create the file or migrate it to the newest version."""
        folder = folder.absolute()
        make_library_folder(folder)
        self._lock = WriterLock(folder)
        self._lock.acquire(wait)
        # A connection has one transaction at a time, so threads take turns.
        self._transaction_lock = threading.Lock()
        self._closed = False
        self._write_engine = writing_engine(catalogue_file(folder))
        try:
            self._prepare(folder)
            super().__init__(folder)
        except BaseException:
            self._release()
            raise

    @contextmanager
    def write_transaction(self) -> Iterator[Connection]:
        """Give the caller a connection in a transaction: committed at the end, rolled back after an error."""
        with self._transaction_lock:
            if self._closed:
                raise LibraryError(f"{self.name} has been closed.")
            try:
                with (
                    connect(self._write_engine) as connection,
                    connection.begin(),
                    self.odd_values_named(connection),
                ):
                    yield connection
            finally:
                forget_versions()

    def change(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns, in a write transaction."""
        with self.write_transaction() as connection:
            return work(connection)

    def close(self) -> None:
        """Copy the log into the file, close all connections and free the lock."""
        super().close()
        with self._transaction_lock, DeferredSignals():
            if not self._closed:
                checkpoint(self._write_engine)
                self._release()

    def _prepare(self, folder: Path) -> None:
        with DeferredSignals():
            # The version is read first: a file of another program is not touched, not even its journal.
            with autocommit_connection(self._write_engine) as connection:
                version = version_of(connection, display_path(catalogue_file(folder)))
                set_journal(connection, on_network_drive(folder))
            with self._write_engine.connect() as connection:
                migrate(connection, version)

    def _release(self) -> None:
        self._closed = True
        try:
            self._write_engine.dispose()
        finally:
            self._lock.release()


class JobRowsDatabase(SqliteDatabase):
    """A catalogue file in which rows of jobs may be changed while another process holds the lock.

    SQLite's own lock, for the moment of a transaction, makes that safe; the writer waits for it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._write_engine = job_rows_engine(catalogue_file(self.folder))

    @contextmanager
    def write_transaction(self) -> Iterator[Connection]:
        """Give the caller a connection in a transaction: committed at the end, rolled back after an error."""
        try:
            with connect(self._write_engine) as connection, connection.begin():
                yield connection
        finally:
            forget_versions()

    def change(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns, in a write transaction."""
        with self.write_transaction() as connection:
            return work(connection)
