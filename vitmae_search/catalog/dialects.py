"""What SQLite and PostgreSQL say differently.

Each expression is one that SQLAlchemy compiles for the database at hand. SQLite's is what it would be without
PostgreSQL.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    DateTime,
    LargeBinary,
    Select,
    String,
    Text,
    bindparam,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from vitmae_search.errors import LibraryError

POSTGRESQL = "postgresql"

MAKE_DATABASE = "createdb --encoding UTF8 --template template0 NAME"
"""The command that makes a PostgreSQL database which takes all texts, whatever the server's own encoding."""

KEY_BYTES = 2000
"""Bytes of a path that PostgreSQL's index has: it takes keys of 2,704 bytes, and paths may be longer."""

PATH_KEY_SQL = f"substr(path, 1, {KEY_BYTES})"
PATH_DIGEST_SQL = "sha256(path)"
"""What makes paths of any length unique on PostgreSQL."""


STREAMED = {"stream_results": True}
"""Execution options of a long reading: PostgreSQL's server keeps the rows, and sends some at a time."""


def is_postgresql(connection: Connection) -> bool:
    """Return whether a connection is to PostgreSQL."""
    return connection.dialect.name == POSTGRESQL


def impossible_value(error: BaseException) -> LibraryError | None:
    """Return the error for a value that no catalogue can store or find; None for other errors.

    Args:
        error: What a database's driver raised before it asked the database.
    """
    if isinstance(error, OverflowError):
        return LibraryError("A number that was given has more than 64 bits. No photo has such a number.")
    if isinstance(error, UnicodeEncodeError):
        shown = error.object.encode("ascii", "backslashreplace").decode()
        return LibraryError(f"'{shown}' is no text that can be stored or found: it is not valid Unicode.")
    return None


def upsert(connection: Connection, row: Any) -> Any:
    """Return an INSERT with `on_conflict_do_update` and `on_conflict_do_nothing`.

    Args:
        connection: The connection that it is for.
        row: The table.
    """
    if is_postgresql(connection):
        from sqlalchemy.dialects import postgresql  # not loaded for a file

        return postgresql.insert(row)
    return sqlite.insert(row)


class PathKey(FunctionElement[bytes]):
    """A path for comparisons and orders, as indexes have it. Other paths of the same key may follow."""

    type = LargeBinary()
    inherit_cache = True


class _PathIdentity(TypeDecorator[bytes]):
    """A path where it is compared with others for equality."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        """Return a path as `PathIdentity` has it.

        Args:
            value: The path.
            dialect: SQLAlchemy's dialect.
        """
        if value is None or dialect.name != POSTGRESQL:
            return value
        return hashlib.sha256(value).digest()


class PathIdentity(FunctionElement[bytes]):
    """A path for comparisons with others for equality, as unique indexes have it."""

    type = _PathIdentity()
    inherit_cache = True


class MonthOf(FunctionElement[str]):
    """The month, as "2024-03", of a time in seconds since 1970; NULL outside the years 1 to 9999."""

    type = String()
    inherit_cache = True


class Now(FunctionElement[datetime]):
    """This moment in UTC, by the server's clock: those of several machines differ."""

    type = DateTime()
    inherit_cache = True


class PositionOf(FunctionElement[int]):
    """Where in a path some bytes are, from 1; 0 where they are not in it."""

    type = BigInteger()
    inherit_cache = True


class _EachOf(FunctionElement[Any]):
    """A table of the values of a list, in its column `value`."""

    inherit_cache = True


class _Values(TypeDecorator[list[Any]]):
    """A parameter with any number of values: JSON for SQLite, an array for PostgreSQL."""

    impl = Text
    cache_ok = True

    def __init__(self, item: TypeEngine[Any]) -> None:
        super().__init__()
        self.item = item

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type of the parameter.

        Args:
            dialect: SQLAlchemy's dialect.
        """
        return dialect.type_descriptor(ARRAY(self.item) if dialect.name == POSTGRESQL else Text())

    def process_bind_param(self, value: list[Any] | None, dialect: Dialect) -> Any:
        """Return the values as the parameter has them.

        Args:
            value: The values.
            dialect: SQLAlchemy's dialect.
        """
        return value if dialect.name == POSTGRESQL else json.dumps(value)


_INTEGERS, _TEXTS = _Values(BigInteger()), _Values(Text())


def listed(values: Iterable[Any], *, integers: bool = False) -> Select[Any]:
    """Return a query that gives these values; unlike parameters, there may be any number of them.

    Args:
        values: Texts, or integers.
        integers: Whether they are integers.
    """
    parameter = bindparam(None, list(values), type_=_INTEGERS if integers else _TEXTS)
    return select(_EachOf(parameter).table_valued("value").c.value)


def _arguments(element: FunctionElement[Any], compiler: SQLCompiler, **kw: Any) -> list[str]:
    return [compiler.process(clause, **kw) for clause in element.clauses]


@compiles(PathKey)
@compiles(PathIdentity)
def _path(element: PathKey, compiler: SQLCompiler, **kw: Any) -> str:
    return _arguments(element, compiler, **kw)[0]


@compiles(PathKey, POSTGRESQL)
def _path_key(element: PathKey, compiler: SQLCompiler, **kw: Any) -> str:
    return f"substr({_arguments(element, compiler, **kw)[0]}, 1, {KEY_BYTES})"


@compiles(PathIdentity, POSTGRESQL)
def _path_digest(element: PathIdentity, compiler: SQLCompiler, **kw: Any) -> str:
    return f"sha256({_arguments(element, compiler, **kw)[0]})"


@compiles(MonthOf)
def _strftime(element: MonthOf, compiler: SQLCompiler, **kw: Any) -> str:
    return f"strftime('%Y-%m', {_arguments(element, compiler, **kw)[0]}, 'unixepoch')"


@compiles(MonthOf, POSTGRESQL)
def _to_char(element: MonthOf, compiler: SQLCompiler, **kw: Any) -> str:
    (moment,) = _arguments(element, compiler, **kw)
    month = f"to_char(to_timestamp({moment}) AT TIME ZONE 'UTC', 'YYYY-MM')"
    return f"CASE WHEN {moment} BETWEEN -62135596800 AND 253402300799 THEN {month} END"


@compiles(Now)
def _now(element: Now, compiler: SQLCompiler, **kw: Any) -> str:
    return "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"


@compiles(Now, POSTGRESQL)
def _clock_timestamp(element: Now, compiler: SQLCompiler, **kw: Any) -> str:
    return "(clock_timestamp() AT TIME ZONE 'UTC')"


@compiles(PositionOf)
def _instr(element: PositionOf, compiler: SQLCompiler, **kw: Any) -> str:
    return f"instr({', '.join(_arguments(element, compiler, **kw))})"


@compiles(PositionOf, POSTGRESQL)
def _position(element: PositionOf, compiler: SQLCompiler, **kw: Any) -> str:
    whole, part = _arguments(element, compiler, **kw)
    return f"position({part} IN {whole})"


@compiles(_EachOf)
def _json_each(element: _EachOf, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_each({_arguments(element, compiler, **kw)[0]})"


@compiles(_EachOf, POSTGRESQL)
def _unnest(element: _EachOf, compiler: SQLCompiler, **kw: Any) -> str:
    return f"(SELECT unnest({_arguments(element, compiler, **kw)[0]}) AS value)"
