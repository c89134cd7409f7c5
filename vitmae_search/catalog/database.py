"""What a catalogue needs of its database: a file (`sqlite.py`) or a PostgreSQL server (`postgresql.py`).

Statements are SQLAlchemy's; what the two say differently is in `dialects.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from sqlalchemy import Connection, Engine, Executable

from vitmae_search.catalog.deferred_signals import DeferredSignals

T = TypeVar("T")

_CACHED_READS = 64  # counts of the latest filters among them

_SIGNALS = "vitmae_search_signals"  # an execution option of a SQLAlchemy connection


class Database(Protocol):
    """A catalogue's database, opened for reading.

    Attributes:
        folder: The library's folder.
        address: Where the database is; None is the file in the folder.
        name: What the database is called in messages, without credentials.
        many_writers: Whether several processes write to it at a time.
    """

    folder: Path
    address: str | None
    name: str
    many_writers: bool

    @property
    def replaced(self) -> bool:
        """Whether another database lies there now, of which the open connections would not know."""

    def read_transaction(self) -> AbstractContextManager[Connection]:
        """Give the caller a connection in one transaction: all that it reads is of the same moment."""

    def single_read(self) -> AbstractContextManager[Connection]:
        """Give the caller a connection for one query: a second one might read of another moment."""

    def streaming_transaction(self) -> AbstractContextManager[Connection]:
        """Like `read_transaction`, for a caller that works on rows one by one: signals do not wait for it."""

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
            decided_by: Reads quickly what changes whenever the result does. A commit that leaves it as it was
                leaves the result in the cache.
        """

    def readers_block_writers(self) -> bool:
        """Return whether a change waits until all readings have ended."""

    def close(self) -> None:
        """Close the connections that are not in use; the others close when they are given back."""


class WritableDatabase(Database, Protocol):
    """A catalogue's database, opened for writing."""

    def write_transaction(self) -> AbstractContextManager[Connection]:
        """Give the caller a connection in a transaction: committed at the end, rolled back after an error."""

    def change(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns, in a write transaction.

        Args:
            work: The change. Where several processes write at once it may be called again, after what it did
                was rolled back.
        """


_versions: ContextVar[dict[ReadCache, Hashable] | None] = ContextVar("versions", default=None)


@contextmanager
def one_version() -> Iterator[None]:
    """Within the block, cached reads of this thread are of one version of each database, asked for once.

    After a change that this thread makes it is asked for again.
    """
    token = _versions.set({})
    try:
        yield
    finally:
        _versions.reset(token)


def forget_versions() -> None:
    """Ask again for the version of each database: this thread may have changed one."""
    known = _versions.get()
    if known is not None:
        known.clear()


class ReadCache:
    """Results of queries, each valid for one version of the database."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[Hashable, Hashable, Any]] = {}

    def get(
        self,
        name: str,
        read_version: Callable[[], Hashable],
        transaction: Callable[[], Any],
        read: Callable[[Connection], T],
        asked: str = "",
        decided_by: Callable[[Connection], Hashable] | None = None,
    ) -> T:
        """Return what `read` returns, from the cache where that is of this version.

        Args:
            name: The key in the cache.
            read_version: Reads what changes with each commit; None keeps nothing. Within `one_version` it is
                called once.
            transaction: Gives a connection in a transaction.
            read: The query.
            asked: As of `Database.cached`.
            decided_by: As of `Database.cached`.
        """
        known = _versions.get()
        version = read_version() if known is None or self not in known else known[self]
        if known is not None:
            known[self] = version
        # The version was read first: a cached value may be newer than its version, and is never older.
        entry = self.entries.get(name)
        if entry is not None and entry[0] == (version, asked):
            return cast(T, entry[2])
        with transaction() as connection:
            deciding = None if decided_by is None else (decided_by(connection), asked)
            if entry is not None and deciding is not None and entry[1] == deciding:
                value = cast(T, entry[2])
            else:
                value = read(connection)
        if version is not None:
            self.entries[name] = (version, asked), deciding, value
            for oldest in list(self.entries)[:-_CACHED_READS]:
                self.entries.pop(oldest, None)
        return value


def fetch_tuples(connection: Connection, statement: Executable) -> list[tuple[Any, ...]]:
    """Run a query of very many rows, and return these as the driver has them.

    SQLAlchemy's own rows take twice as long. Nothing is converted, as dates and wide integers would be.

    Args:
        connection: A connection in a transaction.
        statement: The query.
    """
    cursor: Any = connection.execute(statement).cursor
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


@contextmanager
def connect(engine: Engine) -> Iterator[Connection]:
    """Borrow a connection of `engine`; signals wait for its next statement or until it is given back."""
    with DeferredSignals() as signals, engine.connect() as connection:
        yield connection.execution_options(**{_SIGNALS: signals})


def deliver_signals(connection: Connection, *statement: object) -> None:
    """Let an interrupt end a long transaction between two statements, where an exception does no harm.

    Args:
        connection: The connection.
        *statement: What SQLAlchemy's event `before_execute` says of it.
    """
    signals = connection.get_execution_options().get(_SIGNALS)
    if signals is not None:
        signals.deliver()
