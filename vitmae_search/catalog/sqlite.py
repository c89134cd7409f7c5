"""The catalogue's SQLite file: how it is opened, and what SQLite's errors mean to a person.

One process at a time changes a library; it holds `WriterLock`. Its connection alone copies the write-ahead
log back into the file (a checkpoint) while others have the file open; readers open it with `mode=ro` and
cannot, and those who change rows of jobs (`job_rows_engine`) do not. SQLite's WAL-reset bug (before 3.51.3)
needs two connections that checkpoint, so it cannot occur.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, NullPool, QueuePool, StaticPool, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import Pool

from vitmae_search.catalog.database import ReadCache, connect, deliver_signals
from vitmae_search.catalog.deferred_signals import DeferredSignals
from vitmae_search.catalog.dialects import impossible_value
from vitmae_search.catalog.odd_values import odd_values
from vitmae_search.catalog.recovery import UNFINISHED_CODES, undo_unfinished_change
from vitmae_search.errors import (
    LibraryBusy,
    LibraryDamaged,
    LibraryError,
    StorageError,
    VitmaeSearchError,
    display_path,
)

T = TypeVar("T")

FILE_NAME = "catalogue.sqlite3"

BUSY_SECONDS = 30.0
"""How long SQLite waits for a lock: with a rollback journal readers and the writer take turns."""

_CLOSING_BUSY_MS = 1000

_JOB_ROWS_BUSY_MS = 5000
"""How long one waits who changes a job's row: somebody presses a button."""

_SHARED_MEMORY_BYTES = 1 << 16
"""Free space in which the `-shm` file of a write-ahead log can surely be made: it begins with 32 KiB."""

_WRITER_SETTINGS = ("PRAGMA foreign_keys = ON", "PRAGMA synchronous = FULL")

_AUTOCOMMIT = "vitmae_search_autocommit"  # an execution option of a SQLAlchemy connection

_NETWORK_FILE_SYSTEMS = frozenset({
    "9p", "afpfs", "afs", "cifs", "davfs", "fuse.davfs", "fuse.glusterfs", "fuse.rclone", "fuse.sshfs",
    "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "webdav",
})  # fmt: skip
"""A write-ahead log is unsafe here: memory that is shared through a file does not reach other machines."""


def catalogue_file(folder: Path) -> Path:
    """Return the path of a library's catalogue."""
    return folder / FILE_NAME


def sqlite_uri(file: Path, options: str) -> str:
    """Return SQLite's URI of a file; `?`, `#`, `%` and bytes that are not UTF-8 are quoted.

    Args:
        file: The file.
        options: URI parameters, such as "mode=ro".
    """
    return f"{file.absolute().as_uri()}?{options}"


def reader_options(file: Path) -> str:
    """Return the URI parameters with which a reader opens `file` now.

    A reader of a write-ahead log needs to create the `-shm` file. Where the folder cannot be written, or the
    disk is full, the file is therefore opened with `immutable=1`, unless a log or journal holds changes or a
    writer is at work.
    """
    if os.access(file.parent, os.W_OK) and _free_bytes(file.parent) >= _SHARED_MEMORY_BYTES:
        return "mode=ro"
    log, shared, journal = (file.with_name(file.name + end) for end in ("-wal", "-shm", "-journal"))
    has_changes = log.exists() and (shared.exists() or log.stat().st_size > 0)
    return "mode=ro" if has_changes or journal.exists() else "mode=ro&immutable=1"


def _free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return _SHARED_MEMORY_BYTES


def on_network_drive(folder: Path) -> bool:
    """Return whether `folder` is on another machine, by the mount table."""
    import psutil  # imported here because readers do not need it and it takes a while

    try:
        mounts = [(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]
    except (OSError, psutil.Error):
        return False
    return file_system(os.path.realpath(folder), mounts) in _NETWORK_FILE_SYSTEMS


def file_system(path: str, mounts: list[tuple[str, str]]) -> str:
    """Return the type of the file system that `path` is on, in lower case; "" if it is on none of them.

    Args:
        path: An absolute path without symbolic links.
        mounts: Mount points and types of the file systems. The innermost that holds the path counts.
    """
    holding = [
        (len(point), kind.lower())
        for point, kind in mounts
        if path == point or path.startswith(point.rstrip(os.sep) + os.sep)
    ]
    return max(holding, default=(0, ""))[1]


def writing_engine(file: Path) -> Engine:
    """Return an engine with the one read-write connection; its transactions take the write lock first."""
    engine = _engine(file, lambda: "mode=rwc", StaticPool, _WRITER_SETTINGS)
    event.listen(engine, "begin", lambda connection: _begin(connection, "BEGIN IMMEDIATE"))
    return engine


def job_rows_engine(file: Path) -> Engine:
    """Return an engine that opens a connection for each change, which never makes a checkpoint.

    SQLite itself makes one when a connection is closed that is the only one to the file.
    """
    settings = (
        *_WRITER_SETTINGS,
        "PRAGMA wal_autocheckpoint = 0",
        f"PRAGMA busy_timeout = {_JOB_ROWS_BUSY_MS}",
    )
    engine = _engine(file, lambda: "mode=rw", NullPool, settings)
    event.listen(engine, "begin", lambda connection: _begin(connection, "BEGIN IMMEDIATE"))
    return engine


def reading_engine(file: Path) -> Engine:
    """Return an engine with read-only connections, one for each transaction at a time.

    They are pooled, but not where they are opened as immutable: a writer of another user may appear, whose
    changes such a connection would not see. What a killed writer left unfinished is undone first.
    """
    pool = NullPool if "immutable" in reader_options(file) else QueuePool
    engine = _engine(file, lambda: reader_options(file), pool)
    event.listen(engine, "begin", lambda connection: _begin_reading(connection, file))
    return engine


def _engine(file: Path, options: Callable[[], str], pool: type[Pool], settings: Sequence[str] = ()) -> Engine:
    def open_connection() -> sqlite3.Connection:
        connection = sqlite3.connect(
            sqlite_uri(file, options()),
            uri=True,
            timeout=BUSY_SECONDS,
            # sqlite3 begins no transactions of its own; it would not for a SELECT, nor before DDL.
            isolation_level=None,
            # The pool hands a connection to one thread at a time.
            check_same_thread=False,
        )
        try:
            for setting in settings:
                connection.execute(setting)
        except UnicodeDecodeError as error:
            connection.close()
            raise _undecodable(error, display_path(file)) from error
        except BaseException:
            connection.close()
            raise
        return connection

    sizes = {"max_overflow": -1} if pool is QueuePool else {}
    engine = create_engine("sqlite://", creator=open_connection, poolclass=pool, **sizes)
    event.listen(engine, "before_execute", deliver_signals)
    event.listen(engine, "handle_error", lambda context: _translate_error(context, display_path(file)))
    return engine


def _begin(connection: Connection, statement: str) -> None:
    if not connection.get_execution_options().get(_AUTOCOMMIT, False):
        connection.exec_driver_sql(statement)


def _begin_reading(connection: Connection, file: Path) -> None:
    _begin(connection, "BEGIN")
    read_header(connection, file)


def read_header(connection: Connection, file: Path) -> None:
    """Read the file's header, where SQLite notices the unfinished change of a killed writer, and undo it.

    Args:
        connection: A reader's.
        file: The catalogue.

    Raises:
        UnfinishedChange: It cannot be undone.
    """
    try:
        connection.exec_driver_sql("PRAGMA schema_version").all()
    except UnfinishedChange as unfinished:
        try:
            undo_unfinished_change(file)
        except (StorageError, sqlite3.Error) as error:
            raise UnfinishedChange(f"{unfinished} This failed: {error}") from error
        connection.exec_driver_sql("PRAGMA schema_version").all()


def autocommit_connection(engine: Engine) -> Connection:
    """Return a connection without transactions, which some of SQLite's settings require."""
    return engine.connect().execution_options(**{_AUTOCOMMIT: True})


def set_journal(connection: Connection, network: bool) -> str:
    """Choose how the file is journaled.

    Args:
        connection: The writer's connection, without a transaction.
        network: Whether the file is on a network drive.

    Returns:
        "wal" for a write-ahead log; "delete" for a rollback journal on a network drive, and where the file
        system cannot share memory.
    """
    if not network:
        with suppress(StorageError, LibraryBusy):
            if connection.exec_driver_sql("PRAGMA journal_mode = WAL").scalar_one() == "wal":
                return "wal"
    with suppress(LibraryBusy):  # while there are readers it stays as it is, until the next writer
        connection.exec_driver_sql("PRAGMA journal_mode = DELETE").scalar_one()
    return str(connection.exec_driver_sql("PRAGMA journal_mode").scalar_one())


def checkpoint(engine: Engine) -> None:
    """Copy the write-ahead log into the file, so that a closed library is one file. Only the writer may."""
    # If this fails, the log stays and readers go on reading it.
    with suppress(LibraryError), autocommit_connection(engine) as connection:
        # Do not wait long for slow readers.
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {_CLOSING_BUSY_MS}")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()


class UnfinishedChange(StorageError):
    """A writer was killed in the middle of a change, and only a writer can undo it."""


class SqliteDatabase:
    """A catalogue file, opened for reading."""

    address: str | None = None
    many_writers = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.name = display_path(catalogue_file(self.folder))
        self._file_id = _file_id(catalogue_file(self.folder))
        self._engine: Engine | None = reading_engine(catalogue_file(self.folder))
        self._version_lock = threading.Lock()
        self._version_connection: Connection | None = None
        self._cache = ReadCache()

    @property
    def replaced(self) -> bool:
        """Whether another file lies there now: connections would go on reading the one that was opened.

        As long as they have it open, its inode number is not used again.
        """
        return _file_id(catalogue_file(self.folder)) != self._file_id

    @contextmanager
    def read_transaction(self) -> Iterator[Connection]:
        """Give the caller a connection in one transaction: all that it reads is of the same moment."""
        # There is nothing to commit, so it ends by rolling back: on a damaged file a commit would fail.
        with connect(self._open_engine()) as connection, self.odd_values_named(connection):
            yield connection

    def single_read(self) -> AbstractContextManager[Connection]:
        """Give the caller a connection for one query."""
        return self.read_transaction()

    @contextmanager
    def odd_values_named(self, connection: Connection) -> Iterator[None]:
        """Turn an error that comes from a value which cannot be into `LibraryDamaged`, which names it.

        An error for which the file has no such value is raised as it is.
        """
        try:
            yield
        except VitmaeSearchError:
            raise
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            odd = None
            with suppress(LibraryError, DBAPIError):
                odd = next(odd_values(connection), None)
            if odd is None:
                raise
            raise LibraryDamaged(
                f"{self.name} is damaged ({odd}) Run `vitmae-search check --repair`, or put back a copy."
            ) from error

    @contextmanager
    def streaming_transaction(self) -> Iterator[Connection]:
        """Like `read_transaction`, for a caller that works on rows one by one: signals do not wait for it.

        After an interrupt it may not end for a while. With a rollback journal that would block the writer:
        use `read_transaction` there.
        """
        with self._open_engine().connect() as connection, self.odd_values_named(connection):
            yield connection

    def cached(
        self,
        name: str,
        read: Callable[[Connection], T],
        asked: str = "",
        decided_by: Callable[[Connection], Hashable] | None = None,
    ) -> T:
        """Return what `read` returns, from a cache until the next commit: for scans of a whole table.

        Args:
            name: The key in the cache.
            read: The query. Its result is shared between callers, who must not change it.
            asked: What else decides the result, of which the cache keeps the latest alone.
            decided_by: As of `Database.cached`.
        """
        return self._cache.get(name, self._data_version, self.read_transaction, read, asked, decided_by)

    def _data_version(self) -> int | None:
        """Return a number that changes at every commit; None if closed, or in a read-only folder."""
        with self._version_lock, DeferredSignals():
            engine = self._engine
            if engine is None or isinstance(engine.pool, NullPool):
                return None
            if self._version_connection is None:  # numbers of different connections cannot be compared
                self._version_connection = autocommit_connection(engine)
            read_header(self._version_connection, catalogue_file(self.folder))
            return int(self._version_connection.exec_driver_sql("PRAGMA data_version").scalar_one())

    def _open_engine(self) -> Engine:
        engine = self._engine  # another thread may close the database meanwhile
        if engine is None:
            raise LibraryError(f"{self.name} has been closed.")
        return engine

    def readers_block_writers(self) -> bool:
        """Return whether a change waits until all readings have ended: without a write-ahead log."""
        with self.read_transaction() as connection:
            return bool(connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() != "wal")

    def close(self) -> None:
        """Close the connections that are not in use; the others close when they are given back."""
        with self._version_lock, DeferredSignals():
            engine, self._engine = self._engine, None
            connection, self._version_connection = self._version_connection, None
            if connection is not None:
                connection.close()
            if engine is not None:
                engine.dispose()


def _file_id(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


_OF_DAMAGE = ("Could not decode to UTF-8", "foreign key mismatch")
"""How messages of SQLite begin that name no damage, and come of nothing else here."""


def _translate_error(context: ExceptionContext, name: str) -> None:
    error = context.original_exception
    if isinstance(error, UnicodeDecodeError):
        raise _undecodable(error, name) from error
    if isinstance(error, sqlite3.OperationalError) and str(error).startswith(_OF_DAMAGE):
        raise _undecodable(error, name) from error
    code = getattr(error, "sqlite_errorcode", None)
    translated = impossible_value(error) if code is None else error_for_code(code, name, str(error))
    if translated is not None:
        raise translated from error


def _undecodable(error: Exception, name: str) -> LibraryError:
    """Text that is no UTF-8: a value, or a damaged schema, of which SQLite's message quotes bytes."""
    translated = error_for_code(sqlite3.SQLITE_CORRUPT, name, str(error))
    assert translated is not None
    return translated


def error_for_code(code: int, name: str, reason: str) -> LibraryError | None:
    """Return the error that tells a person what SQLite reports; None where the cause is a bug in this code.

    Args:
        code: SQLite's result code, extended or primary.
        name: The file, as it is shown to people.
        reason: SQLite's message.
    """
    if code in UNFINISHED_CODES:
        return UnfinishedChange(
            f"A writer of {name} was stopped in the middle of a change, which must be undone before the "
            "library can be read. Open it where its folder can be written, or copy the whole folder there."
        )
    code &= 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StorageError(
            f"{name} cannot grow: the disk is full. What was finished is kept; free some space and run the "
            "same command again."
        )
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}:
        return LibraryBusy(f"{name} is kept locked by another process. Try again when it is done.")
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return LibraryDamaged(
            f"{name} is damaged ({reason}). Put back a copy of it, or move it away and index again; the "
            "photos are untouched."
        )
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}:
        return StorageError(f"{name} cannot be written ({reason}). Check the folder's permissions.")
    if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR}:
        return StorageError(
            f"{name} cannot be read or written ({reason}). Check the folder's permissions and the disk."
        )
    return None
