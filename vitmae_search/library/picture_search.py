"""Searching one space of a library: by a picture, by several and words, or by a part of a picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitmae_search.catalog import Catalog
from vitmae_search.errors import LibraryError, SpaceError, display_path
from vitmae_search.library.coverage import space_coverage
from vitmae_search.library.spaces import Spaces
from vitmae_search.photos import ThumbnailStore
from vitmae_search.records import (
    Hit,
    MinScore,
    Photo,
    QueryVariant,
    SearchFilter,
    SearchResult,
    Space,
    Words,
)
from vitmae_search.search import (
    Example,
    Picture,
    Query,
    QueryCache,
    QueryVectors,
    choose_variant,
    combine,
    retrieve,
    weighted,
    words_vector,
)
from vitmae_search.vectors import VectorIndex


@dataclass(frozen=True, slots=True)
class WantedHits:
    """Which hits of a search are wanted.

    Attributes:
        k: How many.
        where: Which photos may be hits.
        offset: Hits to skip.
        min_score: The lowest score, in numbers or in words.
        stacks: Return near-identical photos as one hit.
    """

    k: int
    where: SearchFilter
    offset: int
    min_score: MinScore
    stacks: bool


@dataclass(frozen=True, slots=True, eq=False)
class PictureSearch:
    """A search in one space of a library. Its time begins when it is made.

    Attributes:
        catalog: Has the photos.
        space: The space that is searched.
        spaces: The library's, which open embedders.
        open_index: Gives the vector index of a space.
        query_cache: Vectors of pictures that were searched for before.
        thumbnails: The library's, for results that show themselves.
        started: When the search began, of `time.perf_counter`.
    """

    catalog: Catalog
    space: Space
    spaces: Spaces
    open_index: Callable[[Space], VectorIndex]
    query_cache: QueryCache
    thumbnails: ThumbnailStore
    started: float = field(default_factory=time.perf_counter)

    def by_picture(self, query: Query, wanted: WantedHits, *, variants: bool) -> SearchResult:
        """The photos that look most like a picture.

        Args:
            query: The picture.
            wanted: Which hits.
            variants: Try it without borders, and turned.
        """
        least = least_score(wanted.min_score, self.space)
        vectors = self.query_vectors(query)
        index, own = self.open_index(self.space), vectors.content_id
        if variants:
            variant, vector = choose_variant(vectors, self.catalog, index, self.space, wanted.where)
        else:
            variant, vector = QueryVariant(), vectors.as_it_is()
        hits = self._retrieve(index, vector, wanted, min_score=least, own=own)
        return self.result(hits, vectors.known, variant=variant)

    def by_examples(
        self, more: Sequence[Example], less: Sequence[Example], wanted: WantedHits, *, variants: bool
    ) -> SearchResult:
        """The photos that look most like several pictures and words, and less like others.

        Args:
            more: What hits should look like.
            less: What they should look less like.
            wanted: Which hits.
            variants: Try each picture without borders, and turned.
        """
        if not more:
            raise LibraryError("name at least one picture that photos should be like")
        liked, disliked = [weighted(one) for one in more], [weighted(one) for one in less]
        words = sum(isinstance(picture, Words) for picture, _ in (*liked, *disliked))
        if words:
            searched = replace(self, space=self.spaces.text_space(self.catalog, self.space))
            return searched._by_weighted(liked, disliked, words, wanted, variants)
        return self._by_weighted(liked, disliked, words, wanted, variants)

    def _by_weighted(
        self,
        liked: Sequence[tuple[Picture, float]],
        disliked: Sequence[tuple[Picture, float]],
        words: int,
        wanted: WantedHits,
        variants: bool,
    ) -> SearchResult:
        least = least_score(wanted.min_score, self.space, len(liked) + len(disliked) + words)
        index = self.open_index(self.space)
        found = [self._example(picture, index, wanted.where, variants) for picture, _ in (*liked, *disliked)]
        vectors = [one.vector for one in found]
        vector = combine(
            vectors[: len(liked)],
            vectors[len(liked) :],
            [weight for _, weight in liked],
            [weight for _, weight in disliked],
        )
        without = {one.content_id for one in found if one.content_id is not None}
        return self.result(
            self._retrieve(index, vector, wanted, min_score=least, without=without),
            all(one.known for one in found),
            variant=found[0].variant if len(found) == 1 else QueryVariant(),
            examples=len(found) - words,
            words=words,
        )

    def result(self, hits: tuple[Hit, ...], known: bool, **more: Any) -> SearchResult:
        """The hits as `Library` returns them.

        Args:
            hits: Best first.
            known: Whether no model ran.
            **more: Further fields of the result.
        """
        seconds, coverage = time.perf_counter() - self.started, space_coverage(self.catalog, self.space)
        return SearchResult(
            hits,
            self.space,
            known,
            seconds,
            coverage=coverage,
            thumbnail=self.thumbnails.get,
            **more,
        )

    def query_vectors(self, query: Query) -> QueryVectors:
        """The vectors of a picture in this space, computed when they are asked for.

        Args:
            query: The picture.
        """
        return QueryVectors(
            query,
            self.catalog,
            self.space,
            lambda: self.spaces.embedder(self.catalog, self.space),
            self.query_cache,
        )

    def stored_vector(self, photo: Photo) -> NDArray[np.float32]:
        """The vector (D,) that a photo of the library has in this space.

        Args:
            photo: The photo.

        Raises:
            SpaceError: It has none.
        """
        vector = self.catalog.vector(self.space.space_id, photo.content_id)
        if vector is None:
            raise SpaceError(
                f"{display_path(photo.path)} has no vector in space {self.space.space_id} yet; "
                "index its folder again"
            )
        return vector

    def _retrieve(
        self, index: VectorIndex, vector: NDArray[np.float32], wanted: WantedHits, **more: Any
    ) -> tuple[Hit, ...]:
        return retrieve(
            self.catalog,
            index,
            self.space,
            vector,
            k=wanted.k,
            where=wanted.where,
            offset=wanted.offset,
            stacks=wanted.stacks,
            **more,
        )

    def _example(
        self, picture: Picture, index: VectorIndex, where: SearchFilter, variants: bool
    ) -> _ExampleVector:
        """One picture, or one text, of a query of several."""
        if isinstance(picture, Words):
            open_features = partial(self.spaces.features_embedder, self.space)
            vector = words_vector(picture, self.space, open_features, self.query_cache)
            return _ExampleVector(vector, False, QueryVariant(), None)
        if isinstance(picture, int):
            photo = require_photo(self.catalog, picture)
            return _ExampleVector(self.stored_vector(photo), True, QueryVariant(), photo.content_id)
        query = self.query_vectors(picture)
        if not variants:
            return _ExampleVector(query.as_it_is(), query.known, QueryVariant(), None)
        variant, vector = choose_variant(query, self.catalog, index, self.space, where)
        return _ExampleVector(vector, query.known, variant, None)


@dataclass(frozen=True, slots=True, eq=False)
class _ExampleVector:
    """A picture of a query of several: its (D,) vector, and the content that is left out of the hits."""

    vector: NDArray[np.float32]
    known: bool
    variant: QueryVariant
    content_id: int | None


def require_photo(catalog: Catalog, photo_id: int) -> Photo:
    """The photo with an id.

    Args:
        catalog: Of the library.
        photo_id: The id.

    Raises:
        LibraryError: There is none.
    """
    photo = catalog.photo(photo_id)
    if photo is None:
        raise LibraryError(f"the library has no photo with id {photo_id}")
    return photo


def least_score(min_score: MinScore, space: Space, examples: int = 1) -> float:
    """The score that `min_score` means in a space.

    Args:
        min_score: A number or a word; None for any score.
        space: The space.
        examples: Of how many pictures and words the query consists.

    Raises:
        SpaceError: It is a word, and the score was not measured.
    """
    if min_score is None:
        return -1.0
    if not isinstance(min_score, str):
        return float(min_score)
    if examples > 1:
        raise SpaceError(
            f"what {min_score!r} means was measured for one picture, not for several, nor for words; "
            "give a number"
        )
    calibration = space.calibration
    score = None if calibration is None else {"same": calibration.same, "alike": calibration.alike}[min_score]
    if score is None:
        raise SpaceError(
            f"it was not measured which score means {min_score!r} in space {space.space_id}; give a number, "
            "or measure it with `vitmae-search adapt FOLDER`"
        )
    return score
