"""What the catalogue of a library tells by itself: photos, tags, failures, spaces, runs."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from vitmae_search.catalog import Catalog
from vitmae_search.errors import LibraryEmpty, LibraryError, PhotoError, StorageError
from vitmae_search.library.choice import EmbedderChoice
from vitmae_search.library.embedders import Embedders
from vitmae_search.library.projections import Projections
from vitmae_search.library.spaces import Spaces
from vitmae_search.listings import IndexListing
from vitmae_search.photos import THUMBNAIL_SIDE, ThumbnailStore, decode, digest, encode_thumbnail, read_photo
from vitmae_search.records import Failure, LibraryStatus, Photo, Run, SearchFilter, Space, Tag
from vitmae_search.search import Embedded
from vitmae_search.vectors import VectorCache

EVERYTHING = SearchFilter()


class LibraryListing:
    """Lists and counts, and the handles that they are read by. An absent library answers as an empty one."""

    def __init__(
        self, folder: Path, choice: EmbedderChoice, embedders: Embedders, *, background: bool = False
    ) -> None:
        self.folder = folder
        self.thumbnails = ThumbnailStore(folder / "thumbnails")
        self._choice = choice
        self._embedders = embedders
        self._projections = Projections(folder / "projections")
        self._spaces = Spaces(embedders, self._projections)
        self._vectors = VectorCache(folder / "vectors", background=background)
        self._embedded = Embedded()
        self._lock = threading.Lock()
        self._reader: Catalog | None = None

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
        """JPEG bytes: from the cache, else made from the file. None where neither can be had."""
        photo = self._photo(photo_id)
        stored = self.thumbnails.get(photo.digest)
        if stored is not None:
            return stored
        try:
            data = read_photo(photo.path)
            image = decode(data, path=photo.path, shrink_to=THUMBNAIL_SIDE).image
        except PhotoError:
            return None
        name = digest(data)  # of what was read: the file may have changed since it was indexed
        with suppress(StorageError):
            self.thumbnails.put(name, image)
        return self.thumbnails.get(name) or encode_thumbnail(image)

    def index_of(self, space: int | None = None) -> IndexListing:
        """Which index a space (default: the current one) is searched with, and why."""
        return self._vectors.describe(self._catalog().vector_source(self._space(space).space_id))

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
            self._vectors.close()
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
                self._vectors = self._vectors.renewed()
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
