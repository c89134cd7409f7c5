"""From a vector to hits: the vector index finds ids, the catalogue says which photos they are."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitmae_search.catalog import Catalog
from vitmae_search.records import Hit, Photo, SearchFilter, Space
from vitmae_search.vectors import VectorIndex


def retrieve(
    catalog: Catalog,
    index: VectorIndex,
    space: Space,
    vector: NDArray[np.float32],
    *,
    k: int,
    where: SearchFilter | None = None,
    offset: int = 0,
    without: int | None = None,
) -> tuple[Hit, ...]:
    """The `k` contents after the first `offset` that are nearest to `vector` (D,), best first.

    Contents without a photo on disk are left out, and the content `without` (a content id).
    Ranks go on from `offset` + 1.
    """
    where = where or SearchFilter()
    wanted = offset + k + (without is not None)
    ids, scores = _nearest(catalog, index, space, vector, wanted, where)
    photos = catalog.photos_of(ids)
    found = [
        (score, photos[embedding_id])
        for embedding_id, score in zip(ids, scores, strict=True)
        if photos.get(embedding_id) and photos[embedding_id][0].content_id != without
    ]
    page = found[offset : offset + k]
    return tuple(_hit(offset + i, score, group, where) for i, (score, group) in enumerate(page, start=1))


def _nearest(
    catalog: Catalog,
    index: VectorIndex,
    space: Space,
    vector: NDArray[np.float32],
    k: int,
    where: SearchFilter,
) -> tuple[list[int], list[float]]:
    allowed = excluded = None
    if where.empty:
        excluded = catalog.hidden_ids(space.space_id)
    else:
        allowed = catalog.searchable_ids(space.space_id, where)
    matches = index.search(vector[None], k, allowed=allowed, excluded=excluded)[0]
    return [int(i) for i in matches.ids], [float(s) for s in matches.scores]


def _hit(rank: int, score: float, photos: Sequence[Photo], where: SearchFilter) -> Hit:
    """Show the copy that passes the filter's folder; the others are listed beside it."""
    on_disk = [photo for photo in photos if not photo.missing] or list(photos)
    shown = next((photo for photo in on_disk if is_under(photo.path, where.under)), on_disk[0])
    copies = tuple(photo.path for photo in on_disk if photo is not shown)
    return Hit(rank=rank, score=score, photo=shown, copies=copies)


def is_under(path: str, folder: str | None) -> bool:
    """Whether `path` lies in `folder` or is it. None holds everything."""
    if folder is None:
        return True
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
