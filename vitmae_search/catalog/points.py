"""What the map is told of photos: one row for each content that has a vector, read in one query."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select

from vitmae_search.catalog import photos
from vitmae_search.catalog.database import fetch_tuples
from vitmae_search.catalog.dialects import is_postgresql
from vitmae_search.catalog.schema import EmbeddingRow, PhotoRow, TagRow
from vitmae_search.records import SearchFilter


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Contents with a photo on disk; of copies, the photo that came first.

    Attributes:
        embedding_ids: (N,) int64, ascending.
        photo_ids: (N,) int64.
        content_ids: (N,) int64.
        moments: (N,) float64, when they were taken: seconds since 1970 if local time were UTC.
        paths: Their files.
    """

    embedding_ids: NDArray[np.int64]
    photo_ids: NDArray[np.int64]
    content_ids: NDArray[np.int64]
    moments: NDArray[np.float64]
    paths: tuple[str, ...]


def list_points(connection: Connection, space_id: int, where: SearchFilter) -> Points:
    """Return what the map shows; see `Catalog.points`.

    Args:
        connection: A connection in a transaction.
        space_id: The space.
        where: The filter.
    """
    columns: tuple[Any, ...] = (
        *(EmbeddingRow.embedding_id, PhotoRow.photo_id, PhotoRow.content_id),
        *(PhotoRow.moment, PhotoRow.path),
    )
    # SQLite would walk through the space's index and look up each photo, which takes twice as long as to read
    # the table of photos and look up each embedding. No index has an expression.
    space: Any = (
        EmbeddingRow.space_id if is_postgresql(connection) else func.coalesce(EmbeddingRow.space_id, 0)
    )
    statement = select(*columns).join(PhotoRow, PhotoRow.content_id == EmbeddingRow.content_id)
    statement = photos.joined(statement, where).where(
        space == space_id, photos.on_disk(connection, where), *photos.filter_conditions(connection, where)
    )
    rows = fetch_tuples(connection, statement)
    ids, photo_ids, content_ids, moments, paths = zip(*rows, strict=True) if rows else [()] * 5
    names = os.fsdecode(b"\0".join(paths)).split("\0")  # all at once, as no path has a NUL
    embedding_ids = np.array(ids, np.int64)
    order = np.lexsort((np.array(photo_ids, np.int64), embedding_ids))
    order = order[np.flatnonzero(np.diff(embedding_ids[order], prepend=-1))]  # of copies, the first one
    return Points(
        embedding_ids[order],
        np.array(photo_ids, np.int64)[order],
        np.array(content_ids, np.int64)[order],
        np.array(moments, np.float64)[order],
        tuple(names[row] for row in order.tolist()),
    )


def surest_tags(connection: Connection) -> dict[int, str]:
    """Return the surest tag of each content that has one; of several classifiers', the surest of all."""
    statement = select(TagRow.content_id, TagRow.tag).order_by(TagRow.confidence)
    return dict(fetch_tuples(connection, statement.where(TagRow.rank == 1)))
