"""The folders that were indexed, and the library's counts."""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy import Connection, Row, delete, false, func, insert, select, true, update

from vitmae_search.address import absolute_path
from vitmae_search.catalog import photos, spaces
from vitmae_search.catalog.schema import ContentRow, FailureRow, PhotoRow, RootRow
from vitmae_search.errors import LibraryError
from vitmae_search.records import LibraryStatus, Root


def list_roots(connection: Connection) -> list[Root]:
    """Return the folders that were indexed, by path; see `Catalog.roots`."""
    rows = connection.execute(select(*RootRow.__table__.columns).order_by(RootRow.path)).all()
    return [_as_root(connection, row) for row in rows]


def add_root(connection: Connection, path: str, device: int | None) -> Root:
    """Record a folder; see `CatalogWriter.add_root`.

    Args:
        connection: A connection in a transaction.
        path: Absolute path.
        device: The file system's device number (`st_dev`).
    """
    stored = os.fsencode(absolute_path(path))
    statement = select(*RootRow.__table__.columns).where(RootRow.path == stored)
    if connection.execute(statement).one_or_none() is None:
        connection.execute(insert(RootRow).values(path=stored, device=device, offline=False))
    return _as_root(connection, connection.execute(statement).one())


def update_root(connection: Connection, root_id: int, offline: bool, device: int | None) -> None:
    """Change a folder's state; see `CatalogWriter.set_root`.

    Args:
        connection: A connection in a transaction.
        root_id: The root.
        offline: Whether the root is not reachable now.
        device: The file system's device number (`st_dev`).
    """
    values = {"offline": offline} if device is None else {"offline": offline, "device": device}
    changed = connection.execute(update(RootRow).where(RootRow.root_id == root_id).values(values))
    if changed.rowcount == 0:
        raise LibraryError(f"There is no root {root_id}.")


def forget(connection: Connection, folder: str) -> bool:
    """Delete the roots at or in a folder, and the failures in it; say whether there was any.

    Args:
        connection: A connection in a transaction.
        folder: Absolute path.
    """
    low, high = photos.folder_range(folder)
    here = (RootRow.path == os.fsencode(folder)) | ((RootRow.path >= low) & (RootRow.path < high))
    failed = (FailureRow.path >= low) & (FailureRow.path < high)
    statements = (delete(RootRow).where(here), delete(FailureRow).where(failed))
    return sum(connection.execute(statement).rowcount for statement in statements) > 0


def status(connection: Connection, library: str) -> LibraryStatus:
    """Count photos and more; see `Catalog.status`.

    Args:
        connection: A connection in a transaction.
        library: The library's folder.
    """
    existing = spaces.list_spaces(connection)
    current = next((space.features_id for space in existing if space.current), None)
    failed = select(func.count()).select_from(FailureRow).where(FailureRow.space_id == current)
    return LibraryStatus(
        library=library,
        photos=_count(connection, select(func.count()).where(PhotoRow.missing == false())),
        contents=_count(connection, select(func.count()).select_from(ContentRow)),
        missing=_count(connection, select(func.count()).where(PhotoRow.missing == true())),
        failed=_count(connection, failed),
        roots=tuple(list_roots(connection)),
        spaces=tuple(existing),
    )


def _as_root(connection: Connection, row: Row[Any]) -> Root:
    path = os.fsdecode(row.path)
    # Paths are counted in an index alone; whether a photo is missing is in none that begins with the path.
    here = select(func.count()).select_from(PhotoRow).where(photos.in_folder(path))
    on_disk = _count(connection, here) - _count(connection, here.where(PhotoRow.missing == true()))
    return Root(row.root_id, path, row.device, row.offline, on_disk)


def _count(connection: Connection, statement: Any) -> int:
    return int(connection.execute(statement).scalar_one())
