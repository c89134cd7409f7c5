"""A catalogue on a PostgreSQL server: how it is reached, and what the server's errors mean to a person.

Any number of processes read and write it at once. A reading is of one moment (REPEATABLE READ). A change sees
what was committed before each of its statements (READ COMMITTED), begins with a lock on the row of the space
whose vectors it changes, and is tried again where another one came between.

psycopg is imported when an engine is made, so only where an address is given.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

from vitmae_search.catalog.database import ReadCache, connect, deliver_signals, forget_versions
from vitmae_search.catalog.dialects import MAKE_DATABASE, STREAMED, impossible_value
from vitmae_search.catalog.postgresql_migrations import NEWEST, migrate, version_of
from vitmae_search.catalog.writable_sqlite import make_library_folder
from vitmae_search.errors import (
    LibraryBusy,
    LibraryDamaged,
    LibraryDenied,
    LibraryEmpty,
    LibraryError,
    LibraryUnreachable,
    StorageError,
    display_path,
)

T = TypeVar("T")

SCHEMES = ("postgresql", "postgres")

_CONNECT_SECONDS = 10
_ATTEMPTS = 20
_LONGEST_PAUSE = 1.0

_IDLE_SECONDS = 1.0
"""After how long a kept connection is tried before it is used: meanwhile the server may have started anew."""

_CONNECTIONS = 5
_MORE_CONNECTIONS = 25
"""Connections of one process that are kept, and more that it opens where many threads read at once."""


class ConcurrentChange(LibraryBusy):
    """Another writer's change came between; the same change, tried again, takes it into account."""


class PostgresqlDatabase:
    """A catalogue on a PostgreSQL server, opened for reading and writing.

    Attributes:
        folder: The library's folder, which has all but the catalogue.
        address: Where the database is, credentials included.
        name: The same without credentials, for messages.
    """

    replaced = False
    many_writers = True

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder.absolute()
        self.address: str | None = address
        url = read_address(address)
        self.name = database_name(url)
        self._cache = ReadCache()
        self._closed = False
        self._engine = _engine(url, self.name)
        self._reading = self._engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        self._reading_once = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._write_engine = self._engine.execution_options(isolation_level="READ COMMITTED")

    @classmethod
    def open(cls, folder: Path, address: str, *, make: bool = False) -> PostgresqlDatabase:
        """Open a catalogue. One of an older version is migrated.

        Args:
            folder: The library's folder.
            address: The database's address.
            make: Make the folder, and a catalogue where there is none.

        Raises:
            LibraryEmpty: There is no catalogue.
        """
        database = cls(folder, address)
        try:
            if make:
                make_library_folder(folder.absolute(), with_catalogue=False)
            with database.read_transaction() as connection:
                version = version_of(connection, database.name)
            if version == 0 and not make:
                raise LibraryEmpty(
                    f"{database.name} has no photos yet. Index a folder first: vitmae-search index FOLDER "
                    "--catalog ADDRESS."
                )
            if version < NEWEST:
                database.change(lambda connection: migrate(connection, database.name))
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def read_transaction(self) -> Iterator[Connection]:
        """Give the caller a connection in one transaction: all that it reads is of the same moment."""
        self._require_open()
        with connect(self._reading) as connection:
            yield connection

    @contextmanager
    def single_read(self) -> Iterator[Connection]:
        """Give the caller a connection for one query; a transaction would be two messages more."""
        self._require_open()
        with connect(self._reading_once) as connection:
            yield connection

    @contextmanager
    def streaming_transaction(self) -> Iterator[Connection]:
        """Like `read_transaction`, for a caller that works on rows one by one, which the server keeps."""
        self._require_open()
        with self._reading.connect() as connection:
            yield connection.execution_options(**STREAMED)

    @contextmanager
    def write_transaction(self) -> Iterator[Connection]:
        """Give the caller a connection in a transaction: committed at the end, rolled back after an error."""
        self._require_open()
        try:
            with connect(self._write_engine) as connection, connection.begin():
                yield connection
        finally:
            forget_versions()

    def change(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns, in a write transaction, which is tried again after another's change."""
        for attempt in range(1, _ATTEMPTS):
            try:
                with self.write_transaction() as connection:
                    return work(connection)
            except ConcurrentChange:
                time.sleep(random.uniform(0, min(_LONGEST_PAUSE, 0.01 * 2**attempt)))  # noqa: S311
        with self.write_transaction() as connection:
            return work(connection)

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
        return self._cache.get(name, self._version, self.read_transaction, read, asked, decided_by)

    def _version(self) -> str:
        """Return a text that changes at every commit."""
        with self.single_read() as connection:
            return str(connection.exec_driver_sql("SELECT pg_current_snapshot()::text").scalar_one())

    def readers_block_writers(self) -> bool:
        """Return whether a change waits until all readings have ended: here it never does."""
        return False

    def close(self) -> None:
        """Close the connections that are not in use; the others close when they are given back."""
        self._closed = True
        self._engine.dispose()

    def _require_open(self) -> None:
        if self._closed:
            raise LibraryError(f"{self.name} has been closed.")


def read_address(address: str) -> URL:
    """Return a database's address in its parts.

    Raises:
        LibraryError: It is not one of PostgreSQL. The message does not show it, as it may hold a password.
    """
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):  # such as a port that is no number
        url = None
    if url is None or url.drivername not in SCHEMES or not url.database:
        raise LibraryError(
            "The address of a catalogue looks like this: postgresql://USER@HOST:5432/DATABASE. Characters of "
            "a password that have a meaning in addresses are written as %40 (@), %3A (:) or %2F (/)."
        ) from None
    return url.set(drivername="postgresql+psycopg")


def database_name(url: URL) -> str:
    """Return a database's address for people, without a user and a password."""
    return URL.create(SCHEMES[0], host=url.host, port=url.port, database=url.database).render_as_string()


def _engine(url: URL, name: str) -> Engine:
    defaults = {"connect_timeout": _CONNECT_SECONDS, "application_name": "vitmae-search"}
    settings = {key: value for key, value in defaults.items() if key not in url.query}
    try:
        engine = create_engine(
            url,
            connect_args={**settings, "client_encoding": "utf8"},
            pool_size=_CONNECTIONS,
            max_overflow=_MORE_CONNECTIONS,
            pool_use_lifo=True,  # one that was used a moment ago need not be tried
        )
    except ImportError:
        raise LibraryError(
            f"{name} is reached with a package more: pip install 'vitmae-search[postgresql]'"
        ) from None
    event.listen(engine, "connect", _store_no_nul)
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", lambda connection, record, _: _try_idle(engine, connection, record))
    event.listen(engine, "before_execute", deliver_signals)
    event.listen(engine, "handle_error", lambda context: _translate_error(context, name))
    return engine


def _note_use(connection: object, record: ConnectionPoolEntry) -> None:
    """Remember when a connection was used.

    Args:
        connection: psycopg's connection.
        record: The pool's.
    """
    record.info["used"] = time.monotonic()


def _try_idle(engine: Engine, connection: Any, record: ConnectionPoolEntry) -> None:
    """Try a connection that was not used for a while; the pool opens its connections anew if it fails.

    Args:
        engine: Of the pool.
        connection: psycopg's connection.
        record: The pool's.
    """
    if time.monotonic() - record.info.get("used", math.inf) < _IDLE_SECONDS:
        return
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError from error


def _store_no_nul(connection: Any, record: object) -> None:
    """Leave NUL out of texts, which PostgreSQL refuses and a camera may have written.

    Args:
        connection: psycopg's connection.
        record: The pool's.
    """
    from psycopg.types.string import StrDumper, StrDumperUnknown

    def without_nul(dumper: type[Any]) -> type[Any]:
        def dump(self: Any, obj: str) -> Any:
            return dumper.dump(self, obj.replace("\0", ""))

        return type(dumper.__name__, (dumper,), {"dump": dump})

    for dumper in (StrDumper, StrDumperUnknown):
        connection.adapters.register_dumper(str, without_nul(dumper))


def _translate_error(context: ExceptionContext, name: str) -> None:
    error = context.original_exception
    translated = impossible_value(error)
    if type(error).__module__.startswith("psycopg"):
        translated = error_for_state(
            getattr(error, "sqlstate", None),
            name,
            _reason(error),
            of_connection=type(error).__name__ in ("OperationalError", "ConnectionTimeout"),
        )
    if translated is not None:
        raise translated from error


def _reason(error: BaseException) -> str:
    """The first line of the server's message."""
    return display_path(str(error).strip().partition("\n")[0].rstrip("."))


_CONCURRENT = {
    *("40001", "40P01"),  # a serialization failure, a deadlock
    *("23503", "23505"),  # what a row points to was deleted just now, or the same row was added
}


_STATES_BY_MESSAGE = {
    re.compile(r"no password supplied|authentication failed|no pg_hba|role .* does not exist"): "28000",
    re.compile(r"database .* does not exist"): "3D000",
    re.compile(r"too many (connections|clients)|connection slots"): "53300",
}
"""libpq tells no SQLSTATE of a connection that was refused. Servers may speak another language."""


def error_for_state(
    state: str | None, name: str, reason: str, *, of_connection: bool = True
) -> LibraryError | None:
    """Return the error that tells a person what PostgreSQL reports; None where the cause is a bug here.

    Args:
        state: The SQLSTATE; None for an error of the connection.
        name: The database, as it is shown to people.
        reason: The server's message.
        of_connection: Whether an error without a state is one of the connection.
    """
    if state in _CONCURRENT:
        return ConcurrentChange(f"{name} is changed by others again and again ({reason}). Try it once more.")
    if state is None and not of_connection:
        return None
    if state is None:
        told = (code for message, code in _STATES_BY_MESSAGE.items() if message.search(reason))
        state = next(told, "08000")
    for prefix, make in _SENTENCES.items():
        if state.startswith(prefix):
            return make(name, reason)
    return None


def _unreachable(name: str, reason: str) -> LibraryError:
    return LibraryUnreachable(
        f"{name} does not answer ({reason}). What was finished is kept; when the server runs again, try the "
        "same again."
    )


_SENTENCES: dict[str, Callable[[str, str], LibraryError]] = {
    "08": _unreachable,
    "57P": _unreachable,  # it is being shut down, has crashed, or is starting
    "28": lambda name, reason: LibraryError(
        f"{name} does not let this user in ({reason}). Check the user, and the password in the address, in "
        "PGPASSWORD or in the file PGPASSFILE."
    ),
    "3D000": lambda name, reason: LibraryError(f"{name} is not there ({reason}). Make it: {MAKE_DATABASE}"),
    "42501": lambda name, reason: LibraryDenied(
        f"{name} cannot be read or written by this user ({reason}). Its owner can GRANT it."
    ),
    "22003": lambda name, reason: LibraryError(f"{name} has no number as large ({reason})."),
    "25006": lambda name, reason: LibraryDenied(f"{name} cannot be written ({reason})."),
    "42P01": lambda name, reason: LibraryDamaged(f"{name} is damaged ({reason}). Put back a backup."),
    "531": lambda name, reason: StorageError(
        f"{name} cannot grow ({reason}). What was finished is kept; free some space and run the same command "
        "again."
    ),
    "53": lambda name, reason: LibraryBusy(f"{name} has too much to do ({reason}). Try again later."),
    "55": lambda name, reason: LibraryBusy(f"{name} is kept locked by another process. Try again later."),
    "57014": lambda name, reason: LibraryBusy(f"{name} took too long ({reason}). Try again later."),
    "58": lambda name, reason: StorageError(f"{name} cannot be read or written ({reason})."),
    "XX": lambda name, reason: LibraryDamaged(f"{name} is damaged ({reason}). Put back a backup."),
}
"""By the beginning of the SQLSTATE."""
