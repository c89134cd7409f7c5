"""Indexing: from folders to rows and vectors in the catalogue. To run again is to resume.

`index_folders` walks the folders, plans by stamp and digest, reads ahead in worker threads, embeds, records
each batch in one transaction, and brings the vector index up to date. `classify_photos` reads the photos of a
library in the same way, and records what a classifier says of them. Torch-free.
"""

from vitmae_search.indexing.batcher import DEFAULT_BATCH_SIZE
from vitmae_search.indexing.classifier import TagOptions, classify_photos
from vitmae_search.indexing.cluster.job import RAY_VARIABLES, ClusterOptions, require_ray
from vitmae_search.indexing.indexer import index_folders
from vitmae_search.indexing.recorder import IndexTarget

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "RAY_VARIABLES",
    "ClusterOptions",
    "IndexTarget",
    "TagOptions",
    "classify_photos",
    "index_folders",
    "require_ray",
]
