"""From a vector to hits: the vector index finds ids, the catalogue says which photos they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitmae_search.catalog import Catalog
from vitmae_search.photos import is_under
from vitmae_search.records import Hit, Photo, SearchFilter, Space
from vitmae_search.vectors import Matches, VectorIndex

_Found = list[tuple[float, list[Photo]]]

_SPARE = 10
"""Asked for beyond what is wanted, in place of those that are missing."""

_SAME = 1 - 1e-5
"""From this score on, a vector may be the query's own, which rounding keeps from exactly 1."""


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
    own: int | None = None,
) -> tuple[Hit, ...]:
    """The `k` contents after the first `offset` that are nearest to `vector` (D,), best first.

    Contents without a photo on disk are left out, and the content `without` (a content id). `own` is the
    content that `vector` was stored for, and comes first among those that look the same.
    Ranks go on from `offset` + 1.
    """
    where = where or SearchFilter()
    wanted = offset + k + (without is not None)
    found = _nearest(catalog, index, space, vector, wanted, where)
    if own is not None:
        # More contents than were asked for may have the same pixels: blank ones, and files retagged.
        while not _has(found, own) and len(found) == wanted and found[-1][0] >= _SAME:
            wanted *= 2
            found = _nearest(catalog, index, space, vector, wanted, where)
        found = _own_first(found, own)
    page = [one for one in found if one[1][0].content_id != without][offset : offset + k]
    return tuple(_hit(offset + i, score, group, where) for i, (score, group) in enumerate(page, start=1))


def _nearest(
    catalog: Catalog,
    index: VectorIndex,
    space: Space,
    vector: NDArray[np.float32],
    k: int,
    where: SearchFilter,
) -> _Found:
    """Up to `k` contents with their scores and photos, best first."""
    if not where.empty:
        allowed = catalog.searchable_ids(space.space_id, where)
        return _on_disk(catalog, index.search(vector[None], k, allowed=allowed)[0])
    # Few are missing as a rule: to look up all that are would take longer than the search.
    matches = index.search(vector[None], k + _SPARE)[0]
    found = _on_disk(catalog, matches)
    if len(found) < k and len(matches) == k + _SPARE:
        excluded = catalog.hidden_ids(space.space_id)
        found = _on_disk(catalog, index.search(vector[None], k, excluded=excluded)[0])
    return found[:k]


def _on_disk(catalog: Catalog, matches: Matches) -> _Found:
    """Scores and photos of those that have one on disk."""
    photos = catalog.photos_of(matches.ids)
    pairs = [
        (score, photos.get(number, []))
        for score, number in zip(matches.scores.tolist(), matches.ids.tolist(), strict=True)
    ]
    return [(score, group) for score, group in pairs if any(not photo.missing for photo in group)]


def _has(found: _Found, content_id: int) -> bool:
    return any(group[0].content_id == content_id for _, group in found)


def _own_first(found: _Found, own: int) -> _Found:
    """With `own` before those that look the same, and the highest score: theirs exceed it by rounding."""
    mine = [group for _, group in found if group[0].content_id == own]
    others = [one for one in found if one[1][0].content_id != own]
    return [*((found[0][0], group) for group in mine), *others]


def _hit(rank: int, score: float, photos: Sequence[Photo], where: SearchFilter) -> Hit:
    """Show the copy that passes the filter's folder; the others are listed beside it."""
    on_disk = [photo for photo in photos if not photo.missing] or list(photos)
    shown = next(
        (photo for photo in on_disk if where.under is None or is_under(photo.path, where.under)), on_disk[0]
    )
    copies = tuple(photo.path for photo in on_disk if photo is not shown)
    return Hit(rank=rank, score=score, photo=shown, copies=copies)
