"""Vector indexes behind a small interface: exact and approximate search, and caches of both on disk.

The vectors' true home is a `VectorSource` (the catalogue has one); everything here can be made again.
This room does not know the catalogue, photos or models.
"""

from vitmae_search.vectors.cache import VectorCache
from vitmae_search.vectors.exact import ExactIndex
from vitmae_search.vectors.protocols import Matches, Policy, VectorIndex, VectorSource, never
from vitmae_search.vectors.space_index import SpaceIndex

__all__ = [
    "ExactIndex",
    "Matches",
    "Policy",
    "SpaceIndex",
    "VectorCache",
    "VectorIndex",
    "VectorSource",
    "never",
]
