"""From what a person asks with to the vector that it stands for."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.catalog import Catalog
from vitmae_search.embedding import GuardedEmbedder, ProjectedEmbedder, translate_memory_errors
from vitmae_search.errors import PhotoError
from vitmae_search.photos import decode, decode_target, digest, read_photo, upright_rgb
from vitmae_search.records import Space

Query = str | os.PathLike[str] | bytes | Image.Image
"""A path, a file's bytes, or pixels."""


@dataclass(frozen=True, slots=True)
class QueryVector:
    """`vector` is (D,) float32 of unit length; `content_id` is whose it is, where it was stored."""

    vector: NDArray[np.float32]
    content_id: int | None = None

    @property
    def known(self) -> bool:
        """Whether the vector was stored, so that no model ran."""
        return self.content_id is not None


class Embedded:
    """The vectors of the last pictures that a model embedded, by space and digest. Safe for threads.

    Another filter, or another page of results, asks with the same picture again.
    """

    def __init__(self, kept: int = 32) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._vectors: OrderedDict[tuple[str, str], NDArray[np.float32]] = OrderedDict()

    def get(self, space: Space, digest: str) -> NDArray[np.float32] | None:
        with self._lock:
            return self._vectors.get((space.fingerprint, digest))

    def put(self, space: Space, digest: str, vector: NDArray[np.float32]) -> None:
        """Keep it; the oldest gives way."""
        with self._lock:
            self._vectors[space.fingerprint, digest] = vector
            while len(self._vectors) > self._kept:
                self._vectors.popitem(last=False)


def query_bytes(query: str | os.PathLike[str] | bytes) -> tuple[bytes, str | None]:
    """The file's bytes, and its path where it has one. Raises `PhotoError`."""
    if isinstance(query, bytes):
        return query, None
    path = os.path.abspath(os.path.expanduser(os.fspath(query)))
    return read_photo(path), path


def query_image(query: Query, shrink_to: int | None = None) -> Image.Image:
    """The picture as upright RGB. Raises `PhotoError`."""
    if isinstance(query, Image.Image):
        return upright_rgb(query)
    data, path = query_bytes(query)
    return decode(data, path=path, shrink_to=shrink_to).image


def query_vector(
    query: Query,
    catalog: Catalog,
    space: Space,
    open_embedder: Callable[[], GuardedEmbedder | ProjectedEmbedder],
    embedded: Embedded | None = None,
) -> QueryVector:
    """The query's vector in `space`: stored, where the catalogue knows the digest; else embedded.

    `open_embedder` is called only in the second case, and for a file only where `embedded` does not have
    it. It is decoded as the space's photos were.
    """
    embedded = embedded or Embedded()
    if isinstance(query, Image.Image):
        return QueryVector(embed_image(upright_rgb(query), open_embedder()))
    data, path = query_bytes(query)
    name = digest(data)
    content_id = catalog.content_id(name)
    stored = None if content_id is None else catalog.vector(space.space_id, content_id)
    if stored is not None:
        return QueryVector(stored, content_id)
    vector = embedded.get(space, name)
    if vector is None:
        embedder = open_embedder()
        shrink_to = decode_target(space.decode, embedder.input_size)
        vector = embed_image(decode(data, path=path, shrink_to=shrink_to).image, embedder)
        embedded.put(space, name, vector)
    return QueryVector(vector)


def embed_image(image: Image.Image, embedder: GuardedEmbedder | ProjectedEmbedder) -> NDArray[np.float32]:
    """(D,) float32 of unit length for one RGB image."""
    with translate_memory_errors("look at a single photo"):
        vector: NDArray[np.float32] = embedder.embed(embedder.prepare(image)[None])[0]
    return vector


def require_file(path: str) -> str:
    """`path`, if it is still there. Raises `PhotoError` with what to do."""
    if not os.path.isfile(path):
        raise PhotoError(path, "the file is not on disk any more; index its folder again")
    return path
