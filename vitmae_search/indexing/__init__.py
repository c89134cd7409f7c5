"""Indexing: from folders to rows and vectors, incrementally, so that to run again is to resume.

`index_folders` walks (photos), plans by stamp and digest, reads ahead in threads, embeds, records one
batch a transaction (catalogue), and lets the vector index catch up. `classify_photos` reads the photos of a
library in the same way, and records what a classifier says of them. Torch-free.
"""

from vitmae_search.indexing.classifying import TagOptions, classify_photos
from vitmae_search.indexing.run import OpenSpace, index_folders

__all__ = ["OpenSpace", "TagOptions", "classify_photos", "index_folders"]
