"""Indexing: from folders to rows and vectors in the catalogue. To run again is to resume.

`index_folders` walks the folders, plans by stamp and digest, reads ahead in worker threads, embeds, records
each batch in one transaction, and brings the vector index up to date. `classify_photos` reads the photos of a
library in the same way, and records what a classifier says of them. Torch-free.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "DEFAULT_BATCH_SIZE": "batcher",
    "RAY_VARIABLES": "cluster.job",
    "ClusterOptions": "cluster.job",
    "IndexTarget": "recorder",
    "TagOptions": "classifier",
    "classify_photos": "classifier",
    "index_folders": "indexer",
    "require_ray": "cluster.job",
}


def __getattr__(name: str) -> Any:
    """Load what is used: a search needs none of it, and begins sooner."""
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
