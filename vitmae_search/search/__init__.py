"""Search: a query becomes vectors, the vector index finds contents, the catalogue makes them hits."""

from vitmae_search.search.examples import Example, Picture, combine, weighted
from vitmae_search.search.neighbours import neighbour_scores
from vitmae_search.search.parts import find_whole
from vitmae_search.search.query import (
    Query,
    QueryCache,
    QueryVectors,
    embed_images,
    query_image,
    query_picture,
    require_file,
)
from vitmae_search.search.retrieve import choose_variant, retrieve
from vitmae_search.search.words import words_vector

__all__ = [
    "Example",
    "Picture",
    "Query",
    "QueryCache",
    "QueryVectors",
    "choose_variant",
    "combine",
    "embed_images",
    "find_whole",
    "neighbour_scores",
    "query_image",
    "query_picture",
    "require_file",
    "retrieve",
    "weighted",
    "words_vector",
]
