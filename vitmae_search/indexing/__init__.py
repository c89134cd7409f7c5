"""Indexing: from folders to rows and vectors, incrementally, so that to run again is to resume.

`index_folders` walks (photos), plans by stamp and digest, reads ahead in threads, embeds, records one
batch a transaction (catalogue), and lets the vector index catch up. `classify_photos` reads the photos of a
library in the same way, and records what a classifier says of them. Torch-free.
"""

from vitmae_search.indexing.batcher import DEFAULT_BATCH_SIZE
from vitmae_search.indexing.classifier import TagOptions, classify_photos
from vitmae_search.indexing.indexer import index_folders
from vitmae_search.indexing.recorder import OpenTarget, Target

__all__ = ["DEFAULT_BATCH_SIZE", "OpenTarget", "TagOptions", "Target", "classify_photos", "index_folders"]
