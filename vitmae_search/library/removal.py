"""Remove photos from a library that are gone from disk, or not wanted any more. No photo file is touched."""

from __future__ import annotations

from collections.abc import Callable

from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import LibraryError, display_path
from vitmae_search.photos import ThumbnailStore
from vitmae_search.records import RemovalReport
from vitmae_search.vectors import VectorStore


def prune_missing(
    catalog: CatalogWriter, vectors: VectorStore, thumbnails: ThumbnailStore, expected: int | None = None
) -> RemovalReport:
    """Remove the missing photos; see `Library.prune`.

    Args:
        catalog: The library's catalogue.
        vectors: Its index files, brought up to date.
        thumbnails: Its thumbnails.
        expected: How many there may be at most; None for any number.
    """
    return _remove(catalog, vectors, thumbnails, lambda: catalog.remove_missing(expected))


def forget_folder(
    catalog: CatalogWriter, vectors: VectorStore, thumbnails: ThumbnailStore, folder: str
) -> RemovalReport:
    """Remove a folder; see `Library.forget`.

    Args:
        catalog: The library's catalogue.
        vectors: Its index files, brought up to date.
        thumbnails: Its thumbnails.
        folder: The folder's absolute path.

    Raises:
        LibraryError: The catalogue knows nothing in this folder.
    """

    def forget() -> int:
        removed = catalog.forget(folder)
        if removed is None:
            raise LibraryError(
                f"nothing in {display_path(folder)} is in the library; `vitmae-search status` lists its "
                "folders"
            )
        return removed

    return _remove(catalog, vectors, thumbnails, forget)


def _remove(
    catalog: CatalogWriter, vectors: VectorStore, thumbnails: ThumbnailStore, remove: Callable[[], int]
) -> RemovalReport:
    """Remove photos, and then the thumbnails that belong to no content, those of earlier crashes included."""
    vectors_before = sum(space.vectors for space in catalog.spaces())
    photos = remove()
    vectors_now = sum(space.vectors for space in catalog.spaces())
    current = catalog.current_space()
    if current is not None:
        vectors.save(catalog.vector_source(current.space_id))
    known = catalog.digests()
    stale = [digest for digest in thumbnails.digests() if digest not in known]
    for digest in stale:
        thumbnails.delete(digest)
    return RemovalReport(photos, vectors_before - vectors_now, len(stale))
