"""Vector search: exact and approximate indexes (FAISS) and their files, or a vector database.

The catalogue owns the vectors (`VectorSource`); everything here can be rebuilt from it. This package does not
know the catalogue, photos or models.
"""

from vitmae_search.vectors.cache import VectorCache
from vitmae_search.vectors.exact import ExactIndex
from vitmae_search.vectors.protocols import (
    FilteringIndex,
    Matches,
    Policy,
    VectorIndex,
    VectorSource,
    never_cancel,
)
from vitmae_search.vectors.space_index import SpaceIndex
from vitmae_search.vectors.store import VectorStore, open_store

__all__ = [
    "ExactIndex",
    "FilteringIndex",
    "Matches",
    "Policy",
    "SpaceIndex",
    "VectorCache",
    "VectorIndex",
    "VectorSource",
    "VectorStore",
    "never_cancel",
    "open_store",
]
