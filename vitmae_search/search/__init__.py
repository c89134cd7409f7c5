"""Search: a query becomes a vector, the vector index finds contents, the catalogue makes them hits."""

from vitmae_search.search.query import (
    Query,
    QueryCache,
    embed_image,
    query_image,
    query_vector,
    require_file,
)
from vitmae_search.search.retrieve import retrieve

__all__ = [
    "Query",
    "QueryCache",
    "embed_image",
    "query_image",
    "query_vector",
    "require_file",
    "retrieve",
]
