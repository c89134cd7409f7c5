"""Vector search: exact and approximate indexes (FAISS), and their files.

The catalogue owns the vectors (`VectorSource`); everything here can be rebuilt from it. This package does not
know the catalogue, photos or models.
"""

from vitmae_search.vectors.cache import VectorCache
from vitmae_search.vectors.exact import ExactIndex
from vitmae_search.vectors.protocols import Matches, Policy, VectorIndex, VectorSource, never_cancel
from vitmae_search.vectors.space_index import SpaceIndex

__all__ = [
    "ExactIndex",
    "Matches",
    "Policy",
    "SpaceIndex",
    "VectorCache",
    "VectorIndex",
    "VectorSource",
    "never_cancel",
]
