"""Where a known content was before: the rows that a moved photo may take, and vectors kept in hand."""

from __future__ import annotations

import os
from collections import OrderedDict, defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vitmae_search.catalog import Catalog, KnownFile
from vitmae_search.indexing.walk import is_gone
from vitmae_search.photos import is_under
from vitmae_search.records import Photo, PhotoMetadata, Root


class GoneRows:
    """Rows whose file is gone, by content. Each new path with that content takes one."""

    def __init__(self, catalog: Catalog, unseen: Iterable[KnownFile], walked: Iterable[str]) -> None:
        """`unseen`: rows that the walk of their folder did not come by. `walked`: those folders."""
        self._catalog = catalog
        self._unseen: dict[int, list[KnownFile]] = defaultdict(list)
        for row in unseen:
            self._unseen[row.content_id].append(row)
        self._walked = tuple(walked)
        self._roots = [root for root in catalog.roots() if not root.offline]
        self._free: dict[int, list[int]] = {}
        self._taken: set[int] = set()

    def find(self, content_id: int, avoid: set[int]) -> int | None:
        """The id of a row that a new path may take, or None: then the new file is a copy.

        `avoid` holds ids that are promised already. The row stays here until `taken` says that it went.
        """
        if content_id not in self._free:
            rows = self._unseen.get(content_id, ())
            here = [row.photo_id for row in rows if is_gone(row.stamp.path)]
            copies = self._catalog.copies(content_id)
            self._free[content_id] = here + [p.photo_id for p in copies if self._gone_elsewhere(p)]
        return next((photo_id for photo_id in self._free[content_id] if photo_id not in avoid), None)

    def taken(self, content_id: int, photo_id: int) -> None:
        """The row was moved."""
        self._free[content_id].remove(photo_id)
        self._taken.add(photo_id)

    def left(self) -> list[int]:
        """The rows that nobody took and that were not missing before."""
        rows = (row for rows in self._unseen.values() for row in rows)
        return sorted(row.photo_id for row in rows if not row.missing and row.photo_id not in self._taken)

    def _gone_elsewhere(self, photo: Photo) -> bool:
        """Whether a photo outside the walked folders is gone, and not merely away with its drive."""
        if any(is_under(photo.path, folder) for folder in self._walked) or not is_gone(photo.path):
            return False
        return photo.missing or any(_is_home(photo.path, root) for root in self._roots)


def _is_home(path: str, root: Root) -> bool:
    """Whether `root` holds `path` and is there, as is the file system that it was indexed on."""
    if not is_under(path, root.path):
        return False
    try:
        return os.stat(root.path).st_dev == root.device
    except OSError:
        return False


class KeptVectors:
    """Vectors of contents that a row is about to leave, in case another file of this run has them.

    When two photos swap names, or a folder is renumbered, each row gets the content that another one had,
    and the catalogue deletes a content with its last row. Holds the latest `capacity`; thread-safe to look
    into.
    """

    def __init__(self, catalog: Catalog, space_id: int, capacity: int = 20_000) -> None:
        self._catalog = catalog
        self._space_id = space_id
        self._capacity = capacity
        self._kept: OrderedDict[str, tuple[PhotoMetadata, NDArray[np.float32]]] = OrderedDict()

    def keep(self, photo_id: int) -> None:
        """Keep the vector of the content that this row has now, if it has one in this space."""
        photo = self._catalog.photo(photo_id)
        if photo is None or photo.digest in self._kept:
            return
        vector = self._catalog.vector(self._space_id, photo.content_id)
        if vector is not None:
            self._kept[photo.digest] = (photo.metadata, vector)
            if len(self._kept) > self._capacity:
                self._kept.popitem(last=False)

    def get(self, digest: str) -> tuple[PhotoMetadata, NDArray[np.float32]] | None:
        """Metadata and (D,) vector of a content, if it was kept."""
        return self._kept.get(digest)
