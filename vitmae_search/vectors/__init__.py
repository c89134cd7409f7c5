"""Vector indexes behind a small interface: exact FAISS search, and a cache of it on disk.

The vectors' true home is a `VectorSource` (the catalogue has one); everything here can be made again.
This room does not know the catalogue, photos or models.
"""

from vitmae_search.vectors.cache import VectorCache
from vitmae_search.vectors.contract import Matches, VectorIndex, VectorSource
from vitmae_search.vectors.flat import FlatIndex

__all__ = ["FlatIndex", "Matches", "VectorCache", "VectorIndex", "VectorSource"]
