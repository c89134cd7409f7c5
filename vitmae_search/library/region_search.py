"""Searching by a part of a photo: candidates by stored vectors, then patch by patch, by their thumbnails."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.catalog import Catalog
from vitmae_search.catalog.catalog import EVERYTHING
from vitmae_search.embedding import GuardedEmbedder, ProjectedEmbedder
from vitmae_search.errors import InspectionError, LibraryError, display_path
from vitmae_search.inspection.match import mutual_pairs
from vitmae_search.records import (
    Box,
    Hit,
    PatchGrid,
    Photo,
    RegionExplanation,
    RegionQuery,
    SearchFilter,
    Space,
)
from vitmae_search.search import embed_images, retrieve
from vitmae_search.search.regions import TokenCache, explain_fit, fit_region, tokens_of
from vitmae_search.vectors import VectorIndex

QUERY_SIDE = 2048
"""About how large the query's picture is decoded, in pixels of the longer side."""
LEAST_SIDE = 4
"""Pixels of the decoded picture that a box has at least on each side."""


def read_box(numbers: Box | Sequence[float], size: tuple[int, int]) -> Box:
    """The part of a picture that numbers mean.

    Args:
        numbers: Left, top, width and height; shares of the picture's sides, or pixels where one is above 1.
        size: Width and height of the picture in pixels.

    Returns:
        The part, without what lies outside the picture.

    Raises:
        LibraryError: They are no four numbers, or nothing of the picture is in it.
    """
    if isinstance(numbers, Box):
        numbers = (numbers.left, numbers.top, numbers.width, numbers.height)
    values = [float(number) for number in numbers]
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise LibraryError("a box is four numbers: left, top, width and height")
    if max(values) > 1:
        values = [value / size[i % 2] for i, value in enumerate(values)]
    left, top = max(0.0, values[0]), max(0.0, values[1])
    right, bottom = min(1.0, values[0] + values[2]), min(1.0, values[1] + values[3])
    if right <= left or bottom <= top:
        raise LibraryError(f"the box has nothing of the picture, which is {size[0]} × {size[1]} pixels")
    return Box(left, top, right - left, bottom - top)


def cut_out(image: Image.Image, box: Box) -> Image.Image:
    """A part of a picture.

    Args:
        image: The picture.
        box: The part.
    """
    width, height = image.size
    left = min(round(box.left * width), max(0, width - LEAST_SIDE))
    top = min(round(box.top * height), max(0, height - LEAST_SIDE))
    right = max(round((box.left + box.width) * width), left + LEAST_SIDE)
    bottom = max(round((box.top + box.height) * height), top + LEAST_SIDE)
    return image.crop((left, top, min(right, width), min(bottom, height)))


_SHOWN_SIDE = 480
"""Pixels of a part that is shown, at most."""


@dataclass(frozen=True, slots=True)
class RegionSearch:
    """What a search by a part of a photo needs of a library.

    Attributes:
        catalog: Has the photos.
        index: The vector index of the space.
        space: The space whose vectors give candidates.
        open_embedder: Gives what makes the space's vectors.
        open_features: Gives the embedder of its features, which may have patch tokens.
        thumbnail: Gives the small JPEG of the photo with this id, None where there is none.
        cache: Tokens of photos that were looked through before.
    """

    catalog: Catalog
    index: VectorIndex
    space: Space
    open_embedder: Callable[[], GuardedEmbedder | ProjectedEmbedder]
    open_features: Callable[[], GuardedEmbedder]
    thumbnail: Callable[[int], bytes | None]
    cache: TokenCache

    def run(
        self,
        image: Image.Image,
        box: Box,
        whole: Callable[[], NDArray[np.float32]],
        *,
        k: int,
        offset: int,
        where: SearchFilter,
        without: set[int],
        among: int,
        on_progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[tuple[Hit, ...], RegionQuery]:
        """Search.

        Args:
            image: The whole picture, RGB.
            box: The part of it.
            whole: Gives the vector of the whole picture.
            k: Hits wanted.
            offset: Hits to skip.
            where: Which photos may be hits.
            without: Contents that are left out.
            among: How many candidates are looked through.
            on_progress: As for `tokens_of`.
            cancelled: As for `tokens_of`.
        """
        part = cut_out(image, box)
        features = self.open_features()
        if not features.has_patch_tokens:
            hits = self._nearest(self._vector(part), k, where, without, offset)
            return hits, RegionQuery(box, 0, by_patches=False)
        found = self._candidates(part, whole, where, without, among)
        tokens = self._tokens(found, features, on_progress, cancelled)
        if not tokens:
            return (), RegionQuery(box, 0)
        fits = fit_region(
            features.patch_tokens([part])[0],
            part.width / part.height,
            tokens.values(),
            [_shape(found[i]) for i in tokens],
        )
        ordered = sorted(zip(tokens, fits, strict=True), key=lambda one: -one[1].score)
        hits = tuple(
            replace(found[i], rank=rank, score=fit.score, box=fit.box)
            for rank, (i, fit) in enumerate(ordered[offset : offset + k], start=offset + 1)
        )
        return hits, RegionQuery(box, len(tokens))

    def explain(
        self,
        image: Image.Image,
        box: Box,
        whole: Callable[[], NDArray[np.float32]],
        photo: Photo,
        *,
        without: set[int],
        among: int,
    ) -> RegionExplanation:
        """Say why `run` finds a photo; it is compared with the same other photos.

        Args:
            image: The whole picture, RGB.
            box: The part of it.
            whole: Gives the vector of the whole picture.
            photo: The photo, which need not be among the candidates.
            without: Contents that are left out.
            among: How many candidates are looked through.

        Raises:
            InspectionError: The plugin compares no patches, or the photo cannot be read.
        """
        part = cut_out(image, box)
        features = self.open_features()
        if not features.has_patch_tokens:
            raise InspectionError(
                f"plugin {self.space.plugin!r} does not compare parts patch by patch, so it has none to show"
            )
        found = self._candidates(part, whole, EVERYTHING, without - {photo.content_id}, among)
        if photo.content_id not in {hit.photo.content_id for hit in found}:
            found.append(Hit(len(found) + 1, 0.0, photo))
        tokens = self._tokens(found, features)
        places = {found[i].photo.content_id: place for place, i in enumerate(tokens)}
        small = self._small_copy(photo.photo_id)
        if photo.content_id not in places or small is None:
            raise InspectionError(f"{display_path(photo.path)} cannot be read, so it cannot be compared")
        own = features.patch_tokens([part])[0]
        why = explain_fit(
            own,
            part.width / part.height,
            list(tokens.values()),
            [_shape(found[i]) for i in tokens],
            places[photo.content_id],
        )
        part.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
        return RegionExplanation(
            query=PatchGrid(np.asarray(part), (own.shape[0], own.shape[1])),
            hit=PatchGrid(np.asarray(small), (why.photo_shares.shape[0], why.photo_shares.shape[1])),
            score=why.fit.score,
            similarity=why.similarity,
            pairs=mutual_pairs(why.similarity),
            query_shares=why.part_shares,
            hit_shares=why.photo_shares,
            query_rest=why.rest,
            hit_rest=why.rest,
            box=box,
            hit_box=why.fit.box,
            compared=len(tokens),
        )

    def _vector(self, part: Image.Image) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = embed_images([part], self.open_embedder())[0]
        return vector

    def _nearest(
        self,
        vector: NDArray[np.float32],
        count: int,
        where: SearchFilter,
        without: set[int],
        skipped: int = 0,
    ) -> tuple[Hit, ...]:
        return retrieve(
            self.catalog,
            self.index,
            self.space,
            vector,
            k=count,
            offset=skipped,
            where=where,
            without=without,
        )

    def _candidates(
        self,
        part: Image.Image,
        whole: Callable[[], NDArray[np.float32]],
        where: SearchFilter,
        without: set[int],
        among: int,
    ) -> list[Hit]:
        """The photos that are looked through patch by patch."""
        by_part, by_whole = (
            self._nearest(vector, among, where, without) for vector in (self._vector(part), whole())
        )
        return merge_candidates(by_part, by_whole, among)

    def _tokens(
        self,
        found: Sequence[Hit],
        features: GuardedEmbedder,
        on_progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> dict[int, NDArray[np.float16]]:
        """The patch tokens of candidates, by their numbers."""
        return tokens_of(
            [hit.photo.digest for hit in found],
            lambda i: self._small_copy(found[i].photo.photo_id),
            features.patch_tokens,
            fingerprint=self.catalog.space(self.space.features_id).fingerprint,
            cache=self.cache,
            on_progress=on_progress,
            cancelled=cancelled,
        )

    def _small_copy(self, photo_id: int) -> Image.Image | None:
        data = self.thumbnail(photo_id)
        if data is None:
            return None
        with Image.open(BytesIO(data), formats=["JPEG"]) as image:
            return image.convert("RGB")


def merge_candidates(by_part: Sequence[Hit], by_whole: Sequence[Hit], count: int) -> list[Hit]:
    """Photos to look through: two by the vector of the part for each by that of the whole picture.

    Args:
        by_part: Hits of the part, cut out, best first.
        by_whole: Hits of the whole picture, best first.
        count: How many are wanted.
    """
    parts, wholes = iter(by_part), iter(by_whole)
    chosen: dict[int, Hit] = {}
    sources = (parts, parts, wholes)
    turn, ended = 0, 0
    while len(chosen) < count and ended < len(sources):
        hit = next(sources[turn % len(sources)], None)
        turn += 1
        ended = ended + 1 if hit is None else 0
        if hit is not None:
            chosen.setdefault(hit.photo.content_id, hit)
    return list(chosen.values())


def _shape(hit: Hit) -> float:
    return hit.photo.metadata.width / max(1, hit.photo.metadata.height)
