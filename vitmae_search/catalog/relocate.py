"""Relocate a folder: what was recorded of its files is recorded under another path. No file is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, select, update

from vitmae_search.catalog import attributes, photos
from vitmae_search.catalog.schema import FailureRow, PhotoRow, RootRow, SavedSearchRow
from vitmae_search.errors import LibraryError, display_path

_SEPARATOR = os.sep.encode()

_Row = type[PhotoRow] | type[RootRow] | type[FailureRow]
_KEYS: dict[_Row, Any] = {
    PhotoRow: PhotoRow.photo_id,
    FailureRow: FailureRow.failure_id,
    RootRow: RootRow.root_id,
}


def relocate(connection: Connection, old: str, new: str) -> int | None:
    """Record a folder under another path; see `CatalogWriter.relocate`.

    Args:
        connection: A connection in a transaction.
        old: Absolute path.
        new: Absolute path.
    """
    first, second = photos.folder_range(old)[0], photos.folder_range(new)[0]
    if first.startswith(second) or second.startswith(first):
        raise LibraryError("neither folder may be the other one, or inside it")
    moving = list(_inside(connection, old))
    if not moving:
        return None
    if next(_inside(connection, new), None) is not None:
        raise LibraryError(f"the library knows something in {display_path(new)} already")
    # A root's path is that of the folder itself, without the separator at its end.
    ends = {first[:-1]: second[:-1]}
    for row, key, path in moving:
        moved = ends.get(path, second + path[len(first) :])
        statement = update(row).where(_KEYS[row] == bindparam("row")).values(path=bindparam("moved"))
        connection.execute(statement, {"row": key, "moved": moved})
    here = _at_or_in(RootRow, new)
    connection.execute(update(RootRow).where(here).values(device=None, offline=False))
    _relocate_searches(connection, first, second)
    moved_photos = [key for row, key, _ in moving if row is PhotoRow]
    attributes.changed(connection, attributes.contents_of(connection, moved_photos), {})
    return len(moved_photos)


def _inside(connection: Connection, folder: str) -> Iterator[tuple[_Row, int, bytes]]:
    """The rows of photos, failures and roots at or in a folder: table, key and path."""
    for row, key in _KEYS.items():
        for number, path in connection.execute(select(key, row.path).where(_at_or_in(row, folder))).all():
            yield row, number, path


def _at_or_in(row: _Row, folder: str) -> ColumnElement[bool]:
    low, high = photos.folder_range(folder)
    return (row.path == low[:-1]) | photos.between(row.path, low, high)


def _relocate_searches(connection: Connection, first: bytes, second: bytes) -> None:
    """Saved searches that are filtered by the folder, or one in it, follow it."""
    for name, query in connection.execute(select(SavedSearchRow.name, SavedSearchRow.query)).all():
        under = os.fsencode(query["where"].get("under") or "")
        if (under + _SEPARATOR).startswith(first):
            moved = (second + (under + _SEPARATOR)[len(first) :]).rstrip(_SEPARATOR)
            changed = {**query, "where": {**query["where"], "under": os.fsdecode(moved)}}
            statement = update(SavedSearchRow).where(SavedSearchRow.name == name).values(query=changed)
            connection.execute(statement)
