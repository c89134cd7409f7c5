"""How far what a space is searched with lags behind the catalogue."""

from __future__ import annotations

from vitmae_search.catalog import Catalog
from vitmae_search.records import IndexLag, IndexListing, Space

_FOLLOWS = "a search in this space, or the next `vitmae-search index`, brings it up to date"
_AWAY = "start the vector database, or mend its address; nothing is lost, and it follows by itself then"


def index_lag(catalog: Catalog, space: Space, index: IndexListing) -> IndexLag:
    """Compare a space's index with the catalogue.

    Args:
        catalog: The library's catalogue.
        space: The space.
        index: What it is searched with.
    """
    photos = catalog.status().photos
    if index.revision is None:
        return IndexLag(space.space_id, photos, space.vectors, index, None, None, None, _AWAY)
    changes = catalog.vector_source(space.space_id).changes_since(index.revision)
    advice = _FOLLOWS if changes.added or changes.removed else None
    return IndexLag(
        space.space_id, photos, space.vectors, index, changes.added, changes.removed, changes.since, advice
    )
