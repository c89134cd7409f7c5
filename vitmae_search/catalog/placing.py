"""Which row a file that was read goes to: its own, one that moves to its path, or a new one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, bindparam, delete, insert, or_, select, update

from vitmae_search.catalog.photos import chunks
from vitmae_search.catalog.schema import PhotoRow
from vitmae_search.records import PhotoMetadata, Stamp


@dataclass(frozen=True, slots=True, eq=False)
class Indexed:
    """A file that was read, ready to be recorded.

    `digest` is SHA-256 in hex. `vector` is (D,) float32 of unit length, or None where the content has its
    vector in the space already (a move, a copy). `metadata` may be None where the content is known.
    `photo_id` is the row to update, or to move here; None finds the row by path, or makes one.
    """

    stamp: Stamp
    digest: str
    metadata: PhotoMetadata | None
    vector: NDArray[np.float32] | None
    photo_id: int | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """What a photo row needs of its content."""

    content_id: int
    taken_at: datetime | None


@dataclass(slots=True)
class _Places:
    """What is to be written. `abandoned` are the contents that rows pointed to before."""

    inserted: list[dict[str, Any]] = field(default_factory=list)
    updated: dict[int, dict[str, Any]] = field(default_factory=dict)
    moving: list[int] = field(default_factory=list)
    overwritten: set[int] = field(default_factory=set)
    abandoned: set[int] = field(default_factory=set)


def place_photos(
    connection: Connection, items: Sequence[Indexed], contents: Mapping[str, Content]
) -> set[int]:
    """Give each item its photo row; returns the contents that may have lost one."""
    places = _find_places(items, contents, _rows_there(connection, items))
    for some in chunks(places.overwritten):
        connection.execute(delete(PhotoRow).where(PhotoRow.photo_id.in_(some)))
    mine = update(PhotoRow).where(PhotoRow.photo_id == bindparam("row"))
    if places.moving:  # photos may swap their paths, which are unique at every moment
        parked = [{"row": photo_id, "parking": b"\0%d" % photo_id} for photo_id in places.moving]
        connection.execute(mine.values(path=bindparam("parking")), parked)
    if places.updated:
        names = next(iter(places.updated.values()))
        rows = [
            {"row": photo_id, **{f"new_{name}": value for name, value in values.items()}}
            for photo_id, values in places.updated.items()
        ]
        connection.execute(mine.values({name: bindparam(f"new_{name}") for name in names}), rows)
    if places.inserted:
        connection.execute(insert(PhotoRow), places.inserted)
    return places.abandoned


def _find_places(
    items: Sequence[Indexed], contents: Mapping[str, Content], there: Mapping[int, Any]
) -> _Places:
    at_path = {row.path: photo_id for photo_id, row in there.items()}
    claimed = {item.photo_id for item in items} & there.keys()
    places = _Places()
    for item in items:
        values = _photo_values(item, contents[item.digest])
        resident = at_path.get(values["path"])
        if resident in claimed and resident != item.photo_id:
            resident = None  # it moves away in this very batch
        photo_id = item.photo_id if item.photo_id in there else resident
        if photo_id is None:
            places.inserted.append(values)
            continue
        if resident is not None and resident != photo_id:
            places.overwritten.add(resident)
            places.abandoned.add(there[resident].content_id)
        if there[photo_id].path != values["path"]:
            places.moving.append(photo_id)
        places.abandoned.add(there[photo_id].content_id)
        places.updated[photo_id] = values
    return places


def _rows_there(connection: Connection, items: Sequence[Indexed]) -> dict[int, Any]:
    """The rows that the items name, and those at the items' paths."""
    there: dict[int, Any] = {}
    statement = select(PhotoRow.photo_id, PhotoRow.path, PhotoRow.content_id)
    for some in chunks(items):
        paths = [os.fsencode(item.stamp.path) for item in some]
        named = [item.photo_id for item in some if item.photo_id is not None]
        which = or_(PhotoRow.path.in_(paths), PhotoRow.photo_id.in_(named))
        there.update((row.photo_id, row) for row in connection.execute(statement.where(which)))
    return there


def _photo_values(item: Indexed, content: Content) -> dict[str, Any]:
    stamp = item.stamp
    taken = content.taken_at
    return {
        "path": os.fsencode(stamp.path),
        "size": stamp.size,
        "mtime_ns": stamp.mtime_ns,
        "device": stamp.device,
        "content_id": content.content_id,
        "missing": False,
        "moment": stamp.mtime_ns / 1e9 if taken is None else taken.replace(tzinfo=UTC).timestamp(),
    }
