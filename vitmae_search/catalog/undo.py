"""Undo: each change to what a person says of photos records the rows that it changes, as they were.

Each function takes a connection that is in a transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select

from vitmae_search.catalog.dialects import listed
from vitmae_search.catalog.schema import (
    AlbumPhotoRow,
    AlbumRow,
    ChangeRow,
    MarkRow,
    PairDecisionRow,
    SavedSearchRow,
    Table,
)

KEPT = 20
"""Changes that can be undone, one after the other."""

_TABLES: dict[str, type[Table]] = {
    row.__tablename__: row for row in (AlbumRow, AlbumPhotoRow, MarkRow, SavedSearchRow, PairDecisionRow)
}

Snapshot = Mapping[str, Any]
"""The rows of one table that have certain values, as JSON."""


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


def last(connection: Connection) -> str | None:
    """Return what the last change did, in words; None where there is none."""
    statement = select(ChangeRow.text).order_by(ChangeRow.change_id.desc()).limit(1)
    return connection.execute(statement).scalar_one_or_none()


def undo(connection: Connection) -> str | None:
    """Bring back what the last change changed, and return what it did; None where there is none."""
    found = connection.execute(select(ChangeRow).order_by(ChangeRow.change_id.desc()).limit(1)).one_or_none()
    if found is None:
        return None
    for one in reversed(found.before):
        row = _TABLES[one["table"]]
        connection.execute(delete(row).where(_matching(row, one["match"])))
    for one in found.before:
        if one["rows"]:
            connection.execute(insert(_TABLES[one["table"]]), one["rows"])
    connection.execute(delete(ChangeRow).where(ChangeRow.change_id == found.change_id))
    return str(found.text)


def _matching(row: type[Table], match: Mapping[str, Iterable[Any]]) -> ColumnElement[bool]:
    return and_(*(row.__table__.columns[name].in_(listed(values)) for name, values in match.items()))
