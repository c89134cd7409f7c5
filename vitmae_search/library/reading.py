"""Everything that a library answers without writing to its catalogue. Any thread may ask at any time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.errors import SpaceError, display_path
from vitmae_search.library.listing import EVERYTHING, LibraryListing
from vitmae_search.library.model_speeds import measure_models, with_speeds
from vitmae_search.records import (
    IndexProgress,
    ModelListing,
    PluginListing,
    Reconstruction,
    SearchFilter,
    SearchResult,
    Space,
)
from vitmae_search.search import Query, embed_image, query_image, query_vector, require_file, retrieve
from vitmae_search.vectors import VectorIndex

if TYPE_CHECKING:
    from vitmae_search.evaluation import Evaluation


class LibraryReader(LibraryListing):
    """The reading half of `Library`. A library that is not there yet answers as an empty one."""

    def search(
        self,
        query: Query,
        *,
        k: int = 10,
        space: int | None = None,
        where: SearchFilter = EVERYTHING,
        offset: int = 0,
    ) -> SearchResult:
        """The `k` photos most like `query` (a path, a file's bytes, or a PIL image), best first.

        A file whose digest the catalogue knows is found by its stored vector, without a model. Raises
        `LibraryEmpty`, `SpaceError`, `PhotoError`, `PluginError`, `ModelError`.
        """
        started = time.perf_counter()
        catalog = self._catalog()
        chosen = self._space(space)
        asked = query_vector(
            query, catalog, chosen, lambda: self._spaces.embedder(catalog, chosen), self._embedded
        )
        hits = retrieve(
            catalog,
            self._index(chosen),
            chosen,
            asked.vector,
            k=k,
            where=where,
            offset=offset,
            own=asked.content_id,
        )
        return SearchResult(hits, chosen, asked.known, time.perf_counter() - started)

    def similar(
        self,
        photo_id: int,
        *,
        k: int = 10,
        space: int | None = None,
        where: SearchFilter = EVERYTHING,
        offset: int = 0,
    ) -> SearchResult:
        """The `k` photos most like one of the library's, which is itself left out. No model runs."""
        started = time.perf_counter()
        catalog = self._catalog()
        chosen = self._space(space)
        photo = self._photo(photo_id)
        vector = catalog.vector(chosen.space_id, photo.content_id)
        if vector is None:
            raise SpaceError(
                f"{display_path(photo.path)} has no vector in space {chosen.space_id} yet; "
                "index its folder again"
            )
        hits = retrieve(
            catalog,
            self._index(chosen),
            chosen,
            vector,
            k=k,
            where=where,
            offset=offset,
            without=photo.content_id,
        )
        return SearchResult(hits, chosen, True, time.perf_counter() - started)

    def warm(self, *, model: bool = False) -> None:
        """Open what the first search would: the vector index, and with `model` the model, which runs once.

        Does nothing in an empty library. Raises what `search` raises.
        """
        if self._current_space_or_none() is None:
            return
        space = self._space(None)
        self._index(space)
        if model:
            embed_image(Image.new("RGB", (64, 64)), self._spaces.embedder(self._catalog(), space))

    def rest(self, *, after: float = 0.0) -> int:
        """Let open models give their device's memory back until they are asked again.

        Those that were asked nothing for `after` seconds, whose plugins can (`Resting`); what is at work goes
        on. Returns how many did.
        """
        return self._embedders.rest(after=after)

    def reconstruct(
        self,
        query: Query | int,
        *,
        mask_ratio: float = 0.75,
        seed: int = 0,
        mask: NDArray[np.bool_] | None = None,
    ) -> Reconstruction:
        """Hide patches of a picture, or of the photo with this id, and let the model fill them in.

        `mask_ratio` 0 ≤ r < 1 and `seed` choose the patches, or `mask` (gh, gw) bool, True = hidden.
        The model is the chosen one, else the current space's if it can, else the bundled one.
        """
        picture = require_file(self._photo(query).path) if isinstance(query, int) else query
        reconstructor = self._embedders.reconstructor(self._choice, self._current_space_or_none())
        return reconstructor.reconstruct(query_image(picture), mask_ratio=mask_ratio, seed=seed, mask=mask)

    def evaluate(
        self,
        folder: str | os.PathLike[str],
        *,
        labels: str | os.PathLike[str] | None = None,
        instances: int = 1000,
        limit: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        on_progress: Callable[[IndexProgress], None] | None = None,
    ) -> Evaluation:
        """How good searches are on the photos of `folder`, with what `index` would embed with now.

        The photos need not be in the library, which is not written to. See `evaluating.evaluate_folder`.
        """
        from vitmae_search.library.evaluation import Candidate, evaluate_folder

        chosen = self._spaces.features(self._choice, self._catalog_or_none())
        return evaluate_folder(
            folder,
            [Candidate.of(chosen.embedder, chosen.projection)],
            labels=labels,
            instances=instances,
            limit=limit,
            decode=chosen.decode,
            batch_size=batch_size,
            seed=seed,
            host=self._embedders.host,
            on_progress=on_progress,
        )

    def plugins(self) -> list[PluginListing]:
        """Every plugin found, broken ones with their error."""
        return self._embedders.host.listings()

    def models(self) -> list[ModelListing]:
        """Every model that a plugin can name, with the speed that this machine remembers of it."""
        return with_speeds(self._embedders.models())

    def measure_models(self, on_model: Callable[[str], None] | None = None) -> list[ModelListing]:
        """As `models`, but measure first how fast each one on this machine embeds, and remember it.

        On the library's device and in its precision. `on_model` is told each one's name before its turn of
        a few seconds. One that does not open says why in its note. Raises `DeviceError` where that is why
        none was measured.
        """
        return measure_models(self._embedders, on_model)

    def _index(self, space: Space) -> VectorIndex:
        return self._vectors.open(self._catalog().vector_source(space.space_id))
