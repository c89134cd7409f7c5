"""From a query's vector to hits: the vector index finds contents, the catalogue has their photos."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitmae_search.catalog import Catalog
from vitmae_search.errors import SpaceError
from vitmae_search.photos import is_under
from vitmae_search.records import Hit, Photo, QueryVariant, SearchFilter, Space
from vitmae_search.search.query import QueryVectors, Vectors
from vitmae_search.search.stacks import REACH, are_final, stacks_of
from vitmae_search.search.variants import AS_IT_IS, best_turned, best_upright, is_clear, likely_turns, turns
from vitmae_search.vectors import FilteringIndex, Matches, VectorIndex


class _Found(NamedTuple):
    """A content that the index found: its score, the photos that have it, and its vector's id."""

    score: float
    photos: list[Photo]
    embedding_id: int


_EXTRA = 10
"""Contents searched for beyond those wanted, to replace any whose photos are missing."""

_SAME_SCORE = 1 - 1e-5
"""From this score on a vector may be the query's own: rounding keeps its score from exactly 1."""


def retrieve(
    catalog: Catalog,
    index: VectorIndex,
    space: Space,
    vector: NDArray[np.float32],
    *,
    k: int,
    where: SearchFilter | None = None,
    offset: int = 0,
    without: Collection[int] = (),
    own: int | None = None,
    min_score: float = -1.0,
    stacks: bool = False,
) -> tuple[Hit, ...]:
    """Find the contents that are nearest to a vector, best first. Those without a photo on disk are left out.

    Args:
        catalog: Has the photos.
        index: The space's vector index.
        space: The space that is searched.
        vector: (D,).
        k: How many contents are returned.
        where: Which photos may be hits.
        offset: How many of the best are passed over; ranks go on from there.
        without: Ids of contents that are left out.
        own: Id of the content that `vector` is stored for; it comes first among those with equal pixels.
        min_score: Hits with a lower score are left out.
        stacks: Return near-identical contents as one hit (`stacks`), where the space is calibrated; `k` and
            `offset` then count stacks.
    """
    same = None if space.calibration is None else space.calibration.same

    def ranked(count: int) -> list[_Found]:
        found = _ranked(catalog, index, space, vector, count, where or SearchFilter(), without, own)
        return [one for one in found if one.score >= min_score]

    if stacks and same is not None:
        groups = _stacked(catalog, space, ranked, offset + k, same)
    else:
        groups = [[one] for one in ranked(offset + k)]
    page = enumerate(groups[offset : offset + k], start=offset + 1)
    return tuple(_hit(rank, group, where or SearchFilter()) for rank, group in page)


def _ranked(
    catalog: Catalog,
    index: VectorIndex,
    space: Space,
    vector: NDArray[np.float32],
    count: int,
    where: SearchFilter,
    without: Collection[int],
    own: int | None,
) -> list[_Found]:
    """The `count` nearest contents, best first; see `retrieve`."""
    wanted = count + len(without)
    found = _nearest(catalog, index, space, vector, wanted, where)
    if own is not None:
        # More contents than were asked for may have the same pixels: blank ones, and files with other tags.
        while not _has(found, own) and len(found) == wanted and found[-1].score >= _SAME_SCORE:
            wanted *= 2
            found = _nearest(catalog, index, space, vector, wanted, where)
        found = _own_first(found, own)
    return [one for one in found if one.photos[0].content_id not in without][:count]


def _stacked(
    catalog: Catalog, space: Space, ranked: Callable[[int], list[_Found]], wanted: int, same: float
) -> list[list[_Found]]:
    """At least the first `wanted` stacks, each with its best content first.

    More contents are looked at until these stacks are complete.

    Args:
        catalog: Has the vectors.
        space: The space that is searched.
        ranked: Gives as many contents as it is asked for, best first, or all there are.
        wanted: How many stacks.
        same: As for `stacks_of`.
    """
    count = 2 * wanted + REACH  # most pages need no second look
    while True:
        found = ranked(count)
        try:
            vectors = catalog.vectors(space.space_id, [one.embedding_id for one in found])
        except SpaceError:  # one of them was deleted just now
            return [[one] for one in found]
        places = stacks_of([one.photos[0] for one in found], vectors, same)
        if len(found) < count or (len(places) >= wanted and are_final(places[:wanted], len(found))):
            return [[found[place] for place in stack] for stack in places]
        count *= 2


def choose_variant(
    query: QueryVectors,
    catalog: Catalog,
    index: VectorIndex,
    space: Space,
    where: SearchFilter | None = None,
) -> tuple[QueryVariant, NDArray[np.float32]]:
    """The variant of a query's picture whose best hit decides for it (`variants`), and its vector (D,).

    Args:
        query: The query.
        catalog: Has the photos.
        index: The space's vector index.
        space: The space that is searched.
        where: Which photos may be hits.
    """

    def scores(vectors: Vectors) -> dict[QueryVariant, float]:
        best = _best_scores(catalog, index, space, np.stack(list(vectors.values())), where or SearchFilter())
        return dict(zip(vectors, best, strict=True))

    if query.known:
        return AS_IT_IS, query.as_it_is()
    vectors = query.upright()
    found = scores(vectors)
    upright = best_upright(found)
    if is_clear(found[upright], space.calibration):
        return upright, vectors[upright]
    guessed, likely = query.guess_turned(upright), turns(upright)
    if guessed is not None:
        likely = likely_turns(found[upright], scores(guessed), space.calibration)
    if not likely:
        return upright, vectors[upright]
    turned = query.turned(upright, likely)
    chosen = best_turned(upright, found[upright], scores(turned))
    return chosen, (vectors | turned)[chosen]


def _best_scores(
    catalog: Catalog,
    index: VectorIndex,
    space: Space,
    vectors: NDArray[np.float32],
    where: SearchFilter,
) -> list[float]:
    """For each of the vectors (n, D) the score of its best hit, -1 where nothing may be one."""
    if not where.empty:
        found = _search_where(catalog, index, space, vectors, 1, where)
    else:
        found = index.search(vectors, 1)
        photos = catalog.photos_of(np.concatenate([matches.ids for matches in found]))
        if any(all(photo.missing for photo in group) for group in photos.values()):
            found = _search_on_disk(catalog, index, space, vectors, 1)
    return [float(matches.scores[0]) if len(matches) else -1.0 for matches in found]


def _nearest(
    catalog: Catalog,
    index: VectorIndex,
    space: Space,
    vector: NDArray[np.float32],
    k: int,
    where: SearchFilter,
) -> list[_Found]:
    """Up to `k` contents with their scores and photos, best first."""
    if not where.empty:
        return _on_disk(catalog, _search_where(catalog, index, space, vector[None], k, where)[0])
    # Usually few photos are missing: to look up all that are would take longer than the search.
    matches = index.search(vector[None], k + _EXTRA)[0]
    found = _on_disk(catalog, matches)
    if len(found) < k and len(matches) == k + _EXTRA:
        found = _on_disk(catalog, _search_on_disk(catalog, index, space, vector[None], k)[0])
    return found[:k]


def _search_where(
    catalog: Catalog,
    index: VectorIndex,
    space: Space,
    vectors: NDArray[np.float32],
    k: int,
    where: SearchFilter,
) -> list[Matches]:
    """The `k` nearest of each vector that pass a filter.

    An index that filters by attributes proposes vectors, and the catalogue says which of these pass.
    """
    if isinstance(index, FilteringIndex) and (asked := catalog.attribute_filter(where)) is not None:
        passing = partial(catalog.searchable_among, space.space_id, where)
        return index.search_where(vectors, k, asked, passing)
    return index.search(vectors, k, allowed=catalog.searchable_ids(space.space_id, where))


def _search_on_disk(
    catalog: Catalog, index: VectorIndex, space: Space, vectors: NDArray[np.float32], k: int
) -> list[Matches]:
    """The `k` nearest of each vector that have a photo on disk."""
    if isinstance(index, FilteringIndex):
        return _search_where(catalog, index, space, vectors, k, SearchFilter())
    return index.search(vectors, k, excluded=catalog.hidden_ids(space.space_id))


def _on_disk(catalog: Catalog, matches: Matches) -> list[_Found]:
    """The contents that have a photo on disk."""
    photos = catalog.photos_of(matches.ids)
    found = (
        _Found(score, photos.get(embedding_id, []), embedding_id)
        for score, embedding_id in zip(matches.scores.tolist(), matches.ids.tolist(), strict=True)
    )
    return [one for one in found if any(not photo.missing for photo in one.photos)]


def _has(found: Sequence[_Found], content_id: int) -> bool:
    return any(one.photos[0].content_id == content_id for one in found)


def _own_first(found: Sequence[_Found], own: int) -> list[_Found]:
    """Put `own` first, with the highest score: scores of equal pixels exceed its own by rounding."""
    of_own = [one._replace(score=found[0].score) for one in found if one.photos[0].content_id == own]
    return [*of_own, *(one for one in found if one.photos[0].content_id != own)]


def _hit(rank: int, group: Sequence[_Found], where: SearchFilter) -> Hit:
    """Show the copy that is in the filter's folder; the others are listed beside it."""
    (score, photos, _), *others = group
    on_disk = [photo for photo in photos if not photo.missing] or list(photos)
    shown = next(
        (photo for photo in on_disk if where.under is None or is_under(photo.path, where.under)), on_disk[0]
    )
    copies = tuple(photo.path for photo in on_disk if photo is not shown)
    stacked = tuple(_hit(rank, [other], where) for other in others)
    return Hit(rank=rank, score=score, photo=shown, copies=copies, stacked=stacked)
