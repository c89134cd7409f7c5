"""The file, how it is opened, and what SQLite's errors mean to a person.

There is one read-write connection, that of whoever holds the lock, and it alone folds the write-ahead log
back into the file ("checkpoints"); all others open `mode=ro` and cannot. So SQLite's WAL-reset bug (before
3.51.3), which needs two checkpointing connections, has nothing to bite on.

The writer's lock: one process changes a library at a time.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import psutil
from sqlalchemy import Connection, Engine, NullPool, QueuePool, StaticPool, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.pool import Pool

from vitmae_search.catalog.deferred_signals import DeferredSignals
from vitmae_search.errors import LibraryBusy, LibraryDamaged, LibraryError, StorageError, display_path

T = TypeVar("T")

FILE_NAME = "catalogue.sqlite3"
BUSY_SECONDS = 30.0
"""How long to wait for a lock inside SQLite: with a rollback journal readers and the writer take turns."""

_ALONE = "vitmae_search_alone"
_SIGNALS = "vitmae_search_signals"

_NETWORK = frozenset({
    "9p", "afpfs", "afs", "cifs", "davfs", "fuse.davfs", "fuse.glusterfs", "fuse.rclone", "fuse.sshfs",
    "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "webdav",
})  # fmt: skip
"""File systems whose shared memory does not reach other machines, so that a write-ahead log is unsafe."""


def catalogue_file(folder: Path) -> Path:
    """Where a library keeps its catalogue."""
    return folder / FILE_NAME


def uri(file: Path, options: str) -> str:
    """`file` as SQLite's URI: `?`, `#`, `%` and bytes that are not UTF-8 are quoted."""
    return f"{file.absolute().as_uri()}?{options}"


def read_options(file: Path) -> str:
    """The URI options with which a reader opens `file` now.

    `immutable=1` where nothing can be written beside the file, because a reader of a write-ahead log
    needs its `-shm` file. Not where a log or journal lies there: it holds changes, or a writer lives.
    """
    if os.access(file.parent, os.W_OK):
        return "mode=ro"
    log, shared, journal = (file.with_name(file.name + end) for end in ("-wal", "-shm", "-journal"))
    has_changes = log.exists() and (shared.exists() or log.stat().st_size > 0)
    return "mode=ro" if has_changes or journal.exists() else "mode=ro&immutable=1"


def on_network_drive(folder: Path) -> bool:
    """Whether `folder` lies on another machine, as far as the mount table says."""
    try:
        mounts = [(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]
    except (OSError, psutil.Error):
        return False
    return file_system(os.path.realpath(folder), mounts) in _NETWORK


def file_system(path: str, mounts: list[tuple[str, str]]) -> str:
    """The type of the innermost of `mounts` (mount point, type) that `path` lies on; "" where none."""
    holding = [
        (len(point), kind.lower())
        for point, kind in mounts
        if path == point or path.startswith(point.rstrip(os.sep) + os.sep)
    ]
    return max(holding, default=(0, ""))[1]


def set_journal(connection: Connection, network: bool) -> str:
    """Choose the journal for the writer's connection, and return it: "wal", or "delete" for a rollback one.

    SQLite answers with another mode than WAL where the file system cannot share memory.
    """
    if not network:
        with suppress(StorageError, LibraryBusy):
            if connection.exec_driver_sql("PRAGMA journal_mode = WAL").scalar_one() == "wal":
                return "wal"
    with suppress(LibraryBusy):  # readers are there: it stays as it is until the next writer
        connection.exec_driver_sql("PRAGMA journal_mode = DELETE").scalar_one()
    return str(connection.exec_driver_sql("PRAGMA journal_mode").scalar_one())


def checkpoint(engine: Engine) -> None:
    """Fold the write-ahead log into the file, so that a closed library is one file. The writer's alone."""
    # Where that fails, the log stays and is read as it is.
    with suppress(LibraryError), outside_transactions(engine) as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 1000")  # a slow reader must not hold up the end
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()


def writing_engine(file: Path) -> Engine:
    """The one read-write connection; its transactions begin by taking the write lock."""
    engine = _engine(file, lambda: "mode=rwc", StaticPool)
    event.listen(engine, "begin", lambda connection: _begin(connection, "BEGIN IMMEDIATE"))
    return engine


def reading_engine(file: Path) -> Engine:
    """Read-only connections, one a transaction, kept for the next one.

    In a folder that cannot be written none is kept: a writer that belongs to another user may come, and
    a connection that was opened as immutable would not see it.
    """
    pool = NullPool if "immutable" in read_options(file) else QueuePool
    engine = _engine(file, lambda: read_options(file), pool)
    event.listen(engine, "begin", lambda connection: _begin(connection, "BEGIN"))
    return engine


def outside_transactions(engine: Engine) -> Connection:
    """A connection whose statements each stand alone, as some of SQLite's settings must."""
    return engine.connect().execution_options(**{_ALONE: True})


@contextmanager
def connected(engine: Engine) -> Iterator[Connection]:
    """A connection of `engine`, given back surely: signals wait for its next statement or for the end."""
    with DeferredSignals() as signals, engine.connect() as connection:
        yield connection.execution_options(**{_SIGNALS: signals})


class Database:
    """The read side of one catalogue file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.name = display_path(catalogue_file(self.folder))
        self._identity = _identity(catalogue_file(self.folder))
        self._engine: Engine | None = reading_engine(catalogue_file(self.folder))
        self._watching = threading.Lock()
        self._watch: Connection | None = None
        self._answers: dict[str, tuple[int, Any]] = {}

    @property
    def replaced(self) -> bool:
        """Whether the file is not the one that was opened: connections would go on reading the old one.

        Their hold on it keeps its inode number from being used again.
        """
        return _identity(catalogue_file(self.folder)) != self._identity

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection of the caller's own, in one transaction: everything read is of one moment."""
        # Ended by rolling back, for there is nothing to commit: on a damaged file even that would fail.
        with connected(self._open_engine()) as connection:
            yield connection

    @contextmanager
    def streaming(self) -> Iterator[Connection]:
        """As `reading`, for a caller that works on the rows one by one: signals do not wait for it.

        After an interrupt it may keep its transaction for a while, so with a rollback journal, where it would
        keep the writer waiting, use `reading`.
        """
        with self._open_engine().connect() as connection:
            yield connection

    def remembered(self, name: str, read: Callable[[Connection], T]) -> T:
        """What `read` answers, asked anew only after a commit: for what takes a walk over a whole table.

        `name` stands for the question. An answer is nobody's to change.
        """
        # Looked at first: an answer may be newer than its version, and is never older.
        version = self._version()
        known = self._answers.get(name)
        if known is not None and known[0] == version:
            return cast(T, known[1])
        with self.reading() as connection:
            answer = read(connection)
        if version is not None:
            self._answers[name] = version, answer
        return answer

    def _version(self) -> int | None:
        """A number that changes with every commit of anyone; None where that cannot be seen."""
        with self._watching, DeferredSignals():
            engine = self._engine
            if engine is None or isinstance(engine.pool, NullPool):
                return None
            if self._watch is None:  # a connection of its own, for the number has a meaning only within one
                self._watch = outside_transactions(engine)
            return int(self._watch.exec_driver_sql("PRAGMA data_version").scalar_one())

    def _open_engine(self) -> Engine:
        engine = self._engine  # another thread may close meanwhile
        if engine is None:
            raise LibraryError(f"{self.name} has been closed.")
        return engine

    def logs_ahead(self, connection: Connection) -> bool:
        """Whether the file has a write-ahead log, so that readers and the writer never wait."""
        return bool(connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal")

    def close(self) -> None:
        """Close the connections that are not in use; the others close when they are done."""
        with self._watching, DeferredSignals():
            engine, self._engine = self._engine, None
            watch, self._watch = self._watch, None
            if watch is not None:
                watch.close()
            if engine is not None:
                engine.dispose()


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _begin(connection: Connection, statement: str) -> None:
    if not connection.get_execution_options().get(_ALONE, False):
        connection.exec_driver_sql(statement)


def _deliver_signals(connection: Connection, *statement: object) -> None:
    """Before a statement, where an exception does no harm: a long transaction can be interrupted."""
    signals = connection.get_execution_options().get(_SIGNALS)
    if signals is not None:
        signals.deliver()


def _engine(file: Path, options: Callable[[], str], pool: type[Pool]) -> Engine:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri(file, options()),
            uri=True,
            timeout=BUSY_SECONDS,
            # Transactions are ours alone: sqlite3 would not open one for a SELECT or before DDL.
            isolation_level=None,
            # The pool hands a connection to one thread at a time.
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")
        except UnicodeDecodeError as error:
            connection.close()
            raise _undecodable(error, display_path(file)) from error
        except BaseException:
            connection.close()
            raise
        return connection

    sizes = {"max_overflow": -1} if pool is QueuePool else {}
    engine = create_engine("sqlite://", creator=connect, poolclass=pool, **sizes)
    event.listen(engine, "before_execute", _deliver_signals)
    event.listen(engine, "handle_error", lambda context: _say(context, display_path(file)))
    return engine


def _say(context: ExceptionContext, name: str) -> None:
    error = context.original_exception
    if isinstance(error, UnicodeDecodeError):
        raise _undecodable(error, name) from error
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        said = explain(code & 0xFF, name, str(error))
        if said is not None:
            raise said from error


def _undecodable(error: UnicodeDecodeError, name: str) -> LibraryError:
    """SQLite quotes a damaged schema in its message, which Python cannot decode then."""
    said = explain(sqlite3.SQLITE_CORRUPT, name, str(error))
    assert said is not None
    return said


def explain(code: int, name: str, reason: str) -> LibraryError | None:
    """What a primary SQLite error code means to a person; None where it is a mistake of ours."""
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


LOCK_NAME = "writer.lock"
PID_NAME = "writer.pid"


class WriterLock:
    """`<library>/writer.lock`, held from `acquire` to `release`.

    The operating system frees it when the process ends, however it ends. The holder's process id stands in
    `writer.pid` beside it, for the message only.
    """

    def __init__(self, folder: Path) -> None:
        from filelock import FileLock  # readers never need it, and it takes a while

        self.folder = folder
        # Not thread-local: whoever closes the writer need not be the thread that opened it.
        self._lock = FileLock(folder / LOCK_NAME, thread_local=False)

    def acquire(self, wait: float) -> None:
        """Take the lock within `wait` seconds, or raise `LibraryBusy`; `StorageError` without the right."""
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=wait, poll_interval=0.05)
        except Timeout:
            raise LibraryBusy(
                f"{display_path(self.folder)} is being written by {self._holder()}. Wait until it is done, "
                "or stop it."
            ) from None
        except OSError as error:
            raise StorageError(
                f"{display_path(self.folder)} cannot be written: {error.strerror or error}."
            ) from error
        with suppress(OSError):  # for the message only
            (self.folder / PID_NAME).write_text(f"{os.getpid()}\n", "ascii")

    def release(self) -> None:
        """Free the lock. Doing so twice is fine."""
        if self._lock.is_locked:
            with suppress(OSError):
                (self.folder / PID_NAME).unlink(missing_ok=True)
            self._lock.release()

    def _holder(self) -> str:
        try:
            return f"process {int((self.folder / PID_NAME).read_text('ascii'))}"
        except (OSError, ValueError):
            return "another process"
