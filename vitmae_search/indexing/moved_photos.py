"""Recognise moved photos: rows whose file is gone, which a new path with the same content takes over."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vitmae_search.catalog import Catalog, KnownFile
from vitmae_search.indexing.walk import device_of, is_gone
from vitmae_search.photos import is_under
from vitmae_search.records import Photo, PhotoMetadata, Root


class MissingRows:
    """Rows whose file is gone, by content. Each new path with that content takes one."""

    def __init__(self, catalog: Catalog, unseen: Iterable[KnownFile], walked: Iterable[str]) -> None:
        """Begin with the rows that a walk did not see.

        Args:
            catalog: Has the rows of other folders as well.
            unseen: Rows under the walked folders whose file was not seen.
            walked: The walked folders.
        """
        self._catalog = catalog
        self._unseen: dict[int, list[KnownFile]] = defaultdict(list)
        for row in unseen:
            self._unseen[row.content_id].append(row)
        self._walked = tuple(walked)
        self._roots = [root for root in catalog.roots() if not root.offline]
        self._available: dict[int, dict[int, str]] = {}
        self._moved: set[int] = set()

    @property
    def contents(self) -> set[int]:
        """Ids of the contents of rows under the walked folders whose file is gone."""
        return set(self._unseen)

    def find(self, content_id: int, exclude: set[int]) -> tuple[int, str] | None:
        """Find a row for a new path; it stays available until `mark_moved`.

        Args:
            content_id: The content of the new path.
            exclude: Ids of rows that other paths of the batch are about to take.

        Returns:
            The row's id and its path. None: the new file is a copy, not a moved one.
        """
        if content_id not in self._available:
            rows = self._unseen.get(content_id, ())
            here = {row.photo_id: row.stamp.path for row in rows if is_gone(row.stamp.path)}
            photos = self._catalog.copies(content_id)
            elsewhere = {photo.photo_id: photo.path for photo in photos if self._is_gone_elsewhere(photo)}
            self._available[content_id] = here | elsewhere
        return next((row for row in self._available[content_id].items() if row[0] not in exclude), None)

    def mark_moved(self, content_id: int, photo_id: int) -> None:
        """Note that a new path took a row.

        Args:
            content_id: The row's content.
            photo_id: The row's id.
        """
        del self._available[content_id][photo_id]
        self._moved.add(photo_id)

    def newly_missing(self) -> list[KnownFile]:
        """Return the rows that no path took and that were not missing before."""
        rows = (row for rows in self._unseen.values() for row in rows)
        left = (row for row in rows if not row.missing and row.photo_id not in self._moved)
        return sorted(left, key=lambda row: row.photo_id)

    def _is_gone_elsewhere(self, photo: Photo) -> bool:
        """Whether a photo outside the walked folders is gone, and its drive is not merely offline."""
        if any(is_under(photo.path, folder) for folder in self._walked) or not is_gone(photo.path):
            return False
        return photo.missing or any(_is_online(photo.path, root) for root in self._roots)


def _is_online(path: str, root: Root) -> bool:
    """Whether `root` holds `path`, and the device that it was indexed on is there."""
    return is_under(path, root.path) and root.device is not None and device_of(root.path) == root.device


class ReplacedContents:
    """Vectors of contents that a row is about to give up, in case another file of this run has them.

    When two photos swap names, or the files of a folder are renumbered, each row gets the content that
    another one had, and the catalogue deletes a content with its last row. Any thread may call `get`.
    """

    def __init__(self, catalog: Catalog, space_id: int, capacity: int = 20_000) -> None:
        """Begin with no vector.

        Args:
            catalog: Has the vectors.
            space_id: The space whose vectors are kept.
            capacity: Most vectors; the oldest is dropped for a further one.
        """
        self._catalog = catalog
        self._space_id = space_id
        self._capacity = capacity
        self._contents: OrderedDict[str, tuple[PhotoMetadata, NDArray[np.float32]]] = OrderedDict()

    def save(self, photo_id: int) -> None:
        """Keep the vector of a row's present content, if it has one in this space."""
        photo = self._catalog.photo(photo_id)
        if photo is None or photo.digest in self._contents:
            return
        vector = self._catalog.vector(self._space_id, photo.content_id)
        if vector is not None:
            self._contents[photo.digest] = (photo.metadata, vector)
            if len(self._contents) > self._capacity:
                self._contents.popitem(last=False)

    def get(self, digest: str) -> tuple[PhotoMetadata, NDArray[np.float32]] | None:
        """Return the metadata and the vector (D,) of a content, None where it is not kept."""
        return self._contents.get(digest)
