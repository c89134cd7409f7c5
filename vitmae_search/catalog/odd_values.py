"""Values that this program never writes, but that a damaged or edited catalogue may have.

SQLite stores a value of any type in any column, so a number may stand where a vector belongs, and text where
JSON, a time or UTF-8 does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    REAL,
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Integer,
    LargeBinary,
    String,
    cast,
    func,
    or_,
    select,
)
from sqlalchemy import Table as SqlTable
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from vitmae_search.catalog.dialects import is_postgresql
from vitmae_search.catalog.schema import Table, WideInteger

_SHOWN = 60


@dataclass(frozen=True, slots=True)
class OddValue:
    """A value that cannot be.

    Attributes:
        table: Name of the table.
        key: Values of the row's primary key.
        column: Name of the column.
        shown: The value, shortened.
    """

    table: str
    key: tuple[object, ...]
    column: str
    shown: str

    def __str__(self) -> str:
        row = ", ".join(str(part) for part in self.key)
        return f"{self.table}, row {row}: {self.column} is {self.shown}, which this program never writes."


def odd_values(connection: Connection) -> Iterator[OddValue]:
    """Find the odd values of a catalogue, table by table.

    Args:
        connection: A connection in a transaction.
    """
    if is_postgresql(connection):
        return  # it stores values of the column's type alone
    for table in Table.metadata.sorted_tables:
        yield from _of_wrong_type(connection, table)
        yield from _undecodable(connection, table)


def _of_wrong_type(connection: Connection, table: SqlTable) -> Iterator[OddValue]:
    wrong = {column.name: _is_wrong(column) for column in table.columns}
    key = _raw(*table.primary_key.columns)
    columns = [func.quote(column).label(f"shown_{column.name}") for column in table.columns]
    flags = [condition.label(f"wrong_{name}") for name, condition in wrong.items()]
    statement = select(*key, *columns, *flags).select_from(table).where(or_(*wrong.values()))
    for row in connection.execute(statement).mappings():
        for name in wrong:
            if row[f"wrong_{name}"]:
                shown = str(row[f"shown_{name}"])
                yield OddValue(table.name, _key(row, key), name, shown[:_SHOWN])


def _undecodable(connection: Connection, table: SqlTable) -> Iterator[OddValue]:
    """Text that is no UTF-8."""
    texts = [column for column in table.columns if _plain(column.type, String, JSON)]
    if not texts:
        return
    key = _raw(*table.primary_key.columns)
    blobs = [cast(column, LargeBinary).label(f"blob_{column.name}") for column in texts]
    for row in connection.execute(select(*key, *blobs).select_from(table)).mappings():
        for column in texts:
            value = row[f"blob_{column.name}"]
            try:
                if isinstance(value, bytes):
                    value.decode("utf-8")
            except UnicodeDecodeError:
                yield OddValue(table.name, _key(row, key), column.name, repr(value[:_SHOWN]))


def _is_wrong(column: Column[object]) -> ColumnElement[bool]:
    """An SQL condition: the stored value is of another type than the column's."""
    kind = func.typeof(column)
    wrong: ColumnElement[bool]
    if isinstance(column.type, WideInteger):
        wrong = (kind != "integer") & ~((kind == "text") & func.glob("n*", column))
    elif _plain(column.type, Boolean):
        wrong = (kind != "integer") | ~cast(column, Integer).in_((0, 1))
    elif _plain(column.type, DateTime):
        wrong = (kind != "text") | func.julianday(column).is_(None)
    elif _plain(column.type, JSON):
        wrong = (kind != "text") | (func.json_valid(column) == 0)
    elif _plain(column.type, REAL):
        wrong = kind.not_in(("real", "integer"))
    elif _plain(column.type, Integer, BigInteger):
        wrong = kind != "integer"
    elif _plain(column.type, LargeBinary):
        wrong = kind != "blob"
    else:
        wrong = kind != "text"
    return wrong & (kind != "null") if column.nullable else wrong


def _plain(kind: TypeEngine[Any], *kinds: type[TypeEngine[Any]]) -> bool:
    return isinstance(kind.impl if isinstance(kind, TypeDecorator) else kind, kinds)


def _raw(*columns: Column[object]) -> list[ColumnElement[object]]:
    """The columns as they are stored, without conversion to Python's types."""
    return [func.ifnull(column, None).label(f"key_{column.name}") for column in columns]


def _key(row: object, key: list[ColumnElement[object]]) -> tuple[object, ...]:
    return tuple(row[part.key] for part in key)  # type: ignore[index]
