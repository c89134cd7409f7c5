"""What the map is told of photos: one row for each content that has a vector, read in one query."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, false, select

from vitmae_search.catalog import photos
from vitmae_search.catalog.database import fetch_tuples
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
    statement = select(*columns).join(PhotoRow, PhotoRow.content_id == EmbeddingRow.content_id)
    statement = photos.joined(statement, where).where(
        EmbeddingRow.space_id == space_id,
        PhotoRow.missing == false(),
        *photos.filter_conditions(connection, where),
    )
    first: dict[int, tuple[Any, ...]] = {}
    for row in fetch_tuples(connection, statement.order_by(EmbeddingRow.embedding_id, PhotoRow.photo_id)):
        first.setdefault(row[0], row)
    ids, photo_ids, content_ids, moments, paths = zip(*first.values(), strict=True) if first else [()] * 5
    return Points(
        np.array(ids, np.int64),
        np.array(photo_ids, np.int64),
        np.array(content_ids, np.int64),
        np.array(moments, np.float64),
        tuple(map(os.fsdecode, paths)),
    )


def surest_tags(connection: Connection) -> dict[int, str]:
    """Return the surest tag of each content that has one; of several classifiers', the surest of all."""
    statement = select(TagRow.content_id, TagRow.tag).order_by(TagRow.confidence)
    return dict(fetch_tuples(connection, statement.where(TagRow.rank == 1)))
