"""Queries for browsing: photos in an order, batch after batch, and how many there are of each kind.

A batch begins after a photo and not at a row number, so that the thousandth is as quick as the first.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, exists, false, func, select, true, tuple_

from vitmae_search.catalog import photos, tags
from vitmae_search.catalog.database import fetch_tuples
from vitmae_search.catalog.dialects import MonthOf, PathKey
from vitmae_search.catalog.schema import AlbumPhotoRow, ContentRow, MarkRow, PhotoRow, TagRow
from vitmae_search.records import Photo, PhotoKind, PhotoOrder, SearchFilter

_KEYS: dict[PhotoOrder, Any] = {
    "newest": PhotoRow.moment,
    "oldest": PhotoRow.moment,
    "name": PathKey(PhotoRow.path),
    "largest": PhotoRow.size,
}
_DESCENDING: frozenset[PhotoOrder] = frozenset({"newest", "largest"})


_ORIENTATION = case(
    (ContentRow.width > ContentRow.height, "landscape"),
    (ContentRow.width < ContentRow.height, "portrait"),
    else_="square",
)
_SIZE = case(
    (PhotoRow.size < 10**6, "0-1"),
    (PhotoRow.size < 5 * 10**6, "1-5"),
    (PhotoRow.size < 20 * 10**6, "5-20"),
    else_="20-",
)
_MARKS = ((MarkRow, MarkRow.digest == ContentRow.digest),)
_KINDS: dict[str, tuple[Any, tuple[tuple[Any, Any], ...], bool]] = {
    "month": (MonthOf(PhotoRow.moment), (), False),
    "camera": (ContentRow.camera, (), True),
    "lens": (ContentRow.lens, (), True),
    "place": (case((ContentRow.latitude.is_not(None), "on"), else_="off"), (), True),
    "size": (_SIZE, (), False),
    "format": (ContentRow.format, (), True),
    "orientation": (_ORIENTATION, (), True),
    "tag": (TagRow.tag, ((TagRow, TagRow.content_id == PhotoRow.content_id),), False),
    "favourite": (MarkRow.favourite, _MARKS, True),
    "rating": (MarkRow.rating, _MARKS, True),
    "album": (AlbumPhotoRow.album, ((AlbumPhotoRow, AlbumPhotoRow.digest == ContentRow.digest),), True),
}
"""For each kind what it groups by, the tables that it joins, and whether these need the contents."""


_ANY: dict[str, ColumnElement[bool]] = {
    "lens": ContentRow.lens > "",
    "place": ContentRow.latitude.is_not(None),
    "tag": exists().where(TagRow.content_id == ContentRow.content_id),
    "favourite": ContentRow.digest.in_(select(MarkRow.digest).where(MarkRow.favourite == true())),
    "rating": ContentRow.digest.in_(select(MarkRow.digest).where(MarkRow.rating > 0)),
}
"""Contents of a kind, for `has_any`: each condition is one that an index or a short table answers."""

_KIND_ORDER: dict[str, Callable[[Any], Any]] = {
    "month": lambda row: row[0],
    "size": lambda row: int(row[0].partition("-")[0]),
}
"""In which order; other kinds begin with the most frequent."""


def list_batch(
    connection: Connection, where: SearchFilter, order: PhotoOrder, after: int | None, limit: int
) -> list[Photo]:
    """Return photos on disk in an order; see `Catalog.browse`.

    Args:
        connection: A connection in a transaction.
        where: The filter.
        order: The order.
        after: The id of the last photo of the batch before; None begins at the first photo.
        limit: Most photos to return.
    """
    key, descending = _KEYS[order], order in _DESCENDING
    chosen = photos.joined(select(PhotoRow.photo_id), where)
    conditions = photos.filter_conditions(connection, where, order=order)
    chosen = chosen.where(PhotoRow.missing == false(), *conditions)
    if after is not None:
        last = connection.execute(select(key).where(PhotoRow.photo_id == after)).scalar_one_or_none()
        if last is None:
            return []
        place, before = tuple_(key, PhotoRow.photo_id), tuple_(last, after)
        chosen = chosen.where(place < before if descending else place > before)
    columns = (key, PhotoRow.photo_id)
    chosen = chosen.order_by(*(column.desc() if descending else column.asc() for column in columns))
    ids = list(connection.execute(chosen.limit(limit)).scalars())
    found = photos.by_id(connection, ids)
    return [found[number] for number in ids]


def count_by(connection: Connection, kind: PhotoKind, where: SearchFilter) -> dict[str, int]:
    """Count photos on disk by what they are; see `Catalog.count_by`.

    Args:
        connection: A connection in a transaction.
        kind: What they are counted by.
        where: The filter.
    """
    conditions = (photos.on_disk(connection, where), *photos.filter_conditions(connection, where))
    if kind == "folder":
        return _count_folders(connection, photos.joined(select(PhotoRow.path), where).where(*conditions))
    if kind == "tag" and where == SearchFilter():
        return tags.counts(connection)
    value, joins, needs = _KINDS[kind]
    number = func.count(PhotoRow.photo_id.distinct()) if kind == "tag" else func.count()  # classifiers agree
    statement = select(value, number).select_from(PhotoRow)
    if needs or photos.needs_contents(where):
        statement = statement.join(ContentRow, ContentRow.content_id == PhotoRow.content_id)
    for table, condition in joins:
        statement = statement.join(table, condition)
    rows = connection.execute(statement.where(*conditions).group_by(value)).all()
    rows = [row for row in rows if row[0]]
    rows.sort(key=_KIND_ORDER.get(kind, lambda row: (-row[1], row[0])))
    return {_text_of(name): int(number) for name, number in rows}


def _count_folders(connection: Connection, paths: Select[Any]) -> dict[str, int]:
    separator = os.sep.encode()
    # As os.path.dirname, for absolute paths; that takes twice as long.
    folders = Counter(
        [path[: path.rfind(separator)] or separator for (path,) in fetch_tuples(connection, paths)]
    )
    return {os.fsdecode(folder): folders[folder] for folder in sorted(folders)}


def has_any(connection: Connection, kind: PhotoKind) -> bool:
    """Return whether any photo on disk is of a kind; see `Catalog.has_any`.

    Args:
        connection: A connection in a transaction.
        kind: "lens", "place", "tag", "favourite" or "rating".
    """
    on_disk = exists().where(PhotoRow.content_id == ContentRow.content_id, PhotoRow.missing == false())
    statement = select(ContentRow.content_id).where(_ANY[kind], on_disk).limit(1)
    return connection.execute(statement).first() is not None


def _text_of(value: object) -> str:
    return "on" if value is True else str(value)
