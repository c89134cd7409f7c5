"""Searching: a query becomes a vector, the vector finds ids, the catalogue turns them into hits."""

from vitmae_search.search.query import (
    Embedded,
    Query,
    QueryVector,
    embed_image,
    query_image,
    query_vector,
    require_file,
)
from vitmae_search.search.retrieve import retrieve

__all__ = [
    "Embedded",
    "Query",
    "QueryVector",
    "embed_image",
    "query_image",
    "query_vector",
    "require_file",
    "retrieve",
]
