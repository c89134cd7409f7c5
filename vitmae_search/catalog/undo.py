"""Undo: each change to what a person says of photos records the rows that it changes, as they were.

Each function takes a connection that is in a transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select

from vitmae_search.catalog.dialects import is_postgresql, listed
from vitmae_search.catalog.schema import (
    AlbumPhotoRow,
    AlbumRow,
    ChangeRow,
    MarkRow,
    PairDecisionRow,
    SavedSearchRow,
    Table,
)
from vitmae_search.errors import LibraryError
from vitmae_search.records import Change

KEPT = 20
"""Changes that can be undone, one after the other."""

_TABLES: dict[str, type[Table]] = {
    row.__tablename__: row for row in (AlbumRow, AlbumPhotoRow, MarkRow, SavedSearchRow, PairDecisionRow)
}

Snapshot = Mapping[str, Any]
"""The rows of one table that have certain values, as JSON."""


def lock(connection: Connection) -> None:
    """Let one change at a time be made or undone, until the transaction ends.

    Without it two writers on a server could both record what was there before either, and to undo one change
    would take back the other, too. A file has one writer in any case.
    """
    if is_postgresql(connection):
        table = ChangeRow.__tablename__
        connection.exec_driver_sql(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")  # readers go on


def snapshot(connection: Connection, row: type[Table], **match: Iterable[Any]) -> Snapshot:
    """Return the rows in which each named column has one of its values.

    Args:
        connection: A connection in a transaction.
        row: The table.
        **match: Values by column.
    """
    values = {name: list(some) for name, some in match.items()}
    columns = list(row.__table__.columns)
    rows = connection.execute(select(*columns).where(_matching(row, values)))
    return {"table": row.__tablename__, "match": values, "rows": [dict(one._mapping) for one in rows]}


def record(connection: Connection, text: str, before: Iterable[Snapshot]) -> None:
    """Record a change that is about to be made.

    Args:
        connection: A connection in a transaction.
        text: What the change does, in words.
        before: Snapshots of all that it changes: rows that point to others after those.
    """
    values = {"text": text, "before": [dict(one) for one in before]}
    made = connection.execute(insert(ChangeRow).values(values)).inserted_primary_key
    assert made is not None
    connection.execute(delete(ChangeRow).where(ChangeRow.change_id <= made[0] - KEPT))


def last(connection: Connection) -> Change | None:
    """Return the newest change; None where there is none."""
    statement = select(ChangeRow.change_id, ChangeRow.text).order_by(ChangeRow.change_id.desc()).limit(1)
    found = connection.execute(statement).one_or_none()
    return None if found is None else Change(*found)


def undo(connection: Connection, expected: Change | None = None) -> str | None:
    """Bring back what the newest change changed, and return what it did; None where there is none.

    Args:
        connection: A connection in a transaction that has the `lock`.
        expected: The change that is meant; None for the newest, whichever it is.

    Raises:
        LibraryError: Another change than the expected one is the newest.
    """
    newest = last(connection)
    if expected is not None and newest != expected:
        raise LibraryError(_refusal(expected, newest))
    if newest is None:
        return None
    this = ChangeRow.change_id == newest.change_id
    before = connection.execute(select(ChangeRow.before).where(this)).scalar_one()
    for one in reversed(before):
        row = _TABLES[one["table"]]
        connection.execute(delete(row).where(_matching(row, one["match"])))
    for one in before:
        if one["rows"]:
            connection.execute(insert(_TABLES[one["table"]]), one["rows"])
    connection.execute(delete(ChangeRow).where(this))
    return newest.text


def _refusal(expected: Change, newest: Change | None) -> str:
    if newest is None or newest.change_id < expected.change_id:
        return f"Nothing was undone: this change was taken back already: {expected.text}."
    return (
        f"Nothing was undone: after this change ({expected.text}) another one was made: {newest.text}. "
        "Only the newest change can be undone; if that one should go, too, undo it first."
    )


def _matching(row: type[Table], match: Mapping[str, Iterable[Any]]) -> ColumnElement[bool]:
    return and_(*(row.__table__.columns[name].in_(listed(values)) for name, values in match.items()))
