"""Everything that a library answers without writing to its catalogue. Any thread may ask at any time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vitmae_search.catalog import Catalog
from vitmae_search.errors import (
    LibraryEmpty,
    LibraryError,
    PhotoError,
    SpaceError,
    StorageError,
    display_path,
)
from vitmae_search.evaluation import Evaluation
from vitmae_search.library.choice import EmbedderChoice
from vitmae_search.library.embedders import Embedders
from vitmae_search.library.projections import Projections
from vitmae_search.library.spaces import Spaces
from vitmae_search.library.speeds import measure_models, with_speeds
from vitmae_search.photos import (
    THUMBNAIL_SIDE,
    ThumbnailStore,
    decode,
    digest,
    encode_thumbnail,
    read_photo,
)
from vitmae_search.records import (
    Failure,
    IndexProgress,
    LibraryStatus,
    ModelListing,
    Photo,
    PluginListing,
    Reconstruction,
    Run,
    SearchFilter,
    SearchResult,
    Space,
    Tag,
)
from vitmae_search.search import Query, query_image, query_vector, require_file, retrieve
from vitmae_search.vectors import VectorCache, VectorIndex

EVERYTHING = SearchFilter()


class LibraryReader:
    """The reading half of `Library`. A library that is not there yet answers as an empty one."""

    def __init__(self, folder: Path, choice: EmbedderChoice, embedders: Embedders) -> None:
        self.folder = folder
        self.thumbnails = ThumbnailStore(folder / "thumbnails")
        self._choice = choice
        self._embedders = embedders
        self._projections = Projections(folder / "projections")
        self._spaces = Spaces(embedders, self._projections)
        self._vectors = VectorCache(folder / "vectors")
        self._lock = threading.Lock()
        self._reader: Catalog | None = None

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
        asked = query_vector(query, catalog, chosen, lambda: self._spaces.embedder(catalog, chosen))
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
        batch_size: int = 32,
        on_progress: Callable[[IndexProgress], None] | None = None,
    ) -> Evaluation:
        """How good searches are on the photos of `folder`, with what `index` would embed with now.

        The photos need not be in the library, which is not written to. See `evaluating.evaluate_folder`.
        """
        from vitmae_search.library.evaluating import Candidate, evaluate_folder

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

    def status(self) -> LibraryStatus:
        """Counts, folders and spaces; all zero for a library that is not there yet."""
        catalog = self._catalog_or_none()
        if catalog is None:
            return LibraryStatus(os.fspath(self.folder), 0, 0, 0, 0, (), ())
        return catalog.status()

    def photo(self, photo_id: int) -> Photo | None:
        """The photo with this id."""
        catalog = self._catalog_or_none()
        return catalog.photo(photo_id) if catalog else None

    def photos(
        self, where: SearchFilter = EVERYTHING, *, offset: int = 0, limit: int | None = None
    ) -> list[Photo]:
        """Photos on disk, newest first."""
        catalog = self._catalog_or_none()
        return catalog.photos(where, offset=offset, limit=limit) if catalog else []

    def count_photos(self, where: SearchFilter = EVERYTHING) -> int:
        """How many photos on disk pass the filter."""
        catalog = self._catalog_or_none()
        return catalog.count_photos(where) if catalog else 0

    def tags(self, photo_id: int) -> list[Tag]:
        """What classifiers say of the photo: one classifier after the other, each with its surest first."""
        return self._catalog().tags(self._photo(photo_id).content_id)

    def tag_counts(self) -> dict[str, int]:
        """Every tag of a photo on disk, and how many photos have it, the most frequent first."""
        catalog = self._catalog_or_none()
        return catalog.tag_counts() if catalog else {}

    def failures(self, space: int | None = None) -> list[Failure]:
        """Files without a vector in this space (default: the current one), with reasons."""
        catalog = self._catalog_or_none()
        if catalog is None or not catalog.spaces():
            return []
        return catalog.failures(self._space(space).space_id)

    def thumbnail(self, photo_id: int) -> bytes | None:
        """WebP bytes: from the cache, else made from the file. None where neither can be had."""
        photo = self._photo(photo_id)
        stored = self.thumbnails.get(photo.digest)
        if stored is not None:
            return stored
        try:
            data = read_photo(photo.path)
            image = decode(data, path=photo.path, shrink_to=THUMBNAIL_SIDE).image
        except PhotoError:
            return None
        try:
            # Under the digest of what was read: the file may have changed since it was indexed.
            return self.thumbnails.put(digest(data), image)
        except StorageError:
            return encode_thumbnail(image)

    def plugins(self) -> list[PluginListing]:
        """Every plugin found, broken ones with their error."""
        return self._embedders.host.listings()

    def models(self) -> list[ModelListing]:
        """Every model that a plugin can name, with the speed that this machine remembers of it."""
        return with_speeds(self._embedders.models())

    def measure_models(self, on_model: Callable[[str], None] | None = None) -> list[ModelListing]:
        """As `models`, but measure first how fast each one on this machine embeds, and remember it.

        On the library's device and in its precision. `on_model` is told each one's name before its turn of
        a few seconds. One that does not open says why in its note.
        """
        return measure_models(self._embedders, on_model)

    def spaces(self) -> list[Space]:
        """The embedding spaces, oldest first."""
        catalog = self._catalog_or_none()
        return catalog.spaces() if catalog else []

    def runs(self, limit: int = 20) -> list[Run]:
        """The newest long jobs, from any process."""
        catalog = self._catalog_or_none()
        return catalog.runs(limit) if catalog else []

    def run(self, key: str) -> Run | None:
        """The job with this key, once it has begun."""
        catalog = self._catalog_or_none()
        return catalog.run(key) if catalog else None

    def close(self) -> None:
        """Give the models' memory and the catalogue back."""
        try:
            self._embedders.close()
        finally:
            with self._lock:
                reader, self._reader = self._reader, None
            if reader is not None:
                reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _catalog(self) -> Catalog:
        with self._lock:
            if self._reader is not None and self._reader.replaced:
                replaced, self._reader = self._reader, None
                replaced.close()
                self._vectors = VectorCache(self._vectors.folder)
            if self._reader is None:
                self._reader = Catalog.open(self.folder)
            return self._reader

    def _catalog_or_none(self) -> Catalog | None:
        try:
            return self._catalog()
        except LibraryEmpty:
            return None

    def _current_space_or_none(self) -> Space | None:
        catalog = self._catalog_or_none()
        return catalog.current_space() if catalog else None

    def _space(self, space_id: int | None) -> Space:
        catalog = self._catalog()
        if space_id is not None:
            return catalog.space(space_id)
        chosen = self._spaces.chosen(self._choice, catalog) or catalog.current_space()
        if chosen is None:
            raise LibraryEmpty("nothing is indexed yet; begin with `vitmae-search index FOLDER`")
        return chosen

    def _photo(self, photo_id: int) -> Photo:
        photo = self._catalog().photo(photo_id)
        if photo is None:
            raise LibraryError(f"the library has no photo with id {photo_id}")
        return photo

    def _index(self, space: Space) -> VectorIndex:
        return self._vectors.open(self._catalog().vector_source(space.space_id))
