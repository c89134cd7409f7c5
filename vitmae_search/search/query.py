"""From a query (a file, bytes or an image) to its vector."""

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
"""A path, a file's bytes, or an image."""


@dataclass(frozen=True, slots=True)
class QueryVector:
    """The vector of a query.

    Attributes:
        vector: (D,) float32 of unit length.
        content_id: The content that the vector is stored for; None where it was computed.
    """

    vector: NDArray[np.float32]
    content_id: int | None = None

    @property
    def known(self) -> bool:
        """Whether the vector was stored, so that no model ran."""
        return self.content_id is not None


class QueryCache:
    """The vectors of the last queries that a model embedded. Safe for threads.

    Another filter, or another page of results, repeats the query.
    """

    def __init__(self, capacity: int = 32) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._vectors: OrderedDict[tuple[str, str], NDArray[np.float32]] = OrderedDict()

    def get(self, space: Space, digest: str) -> NDArray[np.float32] | None:
        """Return a query's vector, None where it is not kept.

        Args:
            space: The space that is searched.
            digest: Of the query's bytes.
        """
        with self._lock:
            return self._vectors.get((space.fingerprint, digest))

    def put(self, space: Space, digest: str, vector: NDArray[np.float32]) -> None:
        """Keep a query's vector in place of the oldest one.

        Args:
            space: The space that is searched.
            digest: Of the query's bytes.
            vector: (D,).
        """
        with self._lock:
            self._vectors[space.fingerprint, digest] = vector
            while len(self._vectors) > self._capacity:
                self._vectors.popitem(last=False)


def query_vector(
    query: Query,
    catalog: Catalog,
    space: Space,
    open_embedder: Callable[[], GuardedEmbedder | ProjectedEmbedder],
    cache: QueryCache | None = None,
) -> QueryVector:
    """Return the query's vector: the stored one where the catalogue knows the digest, else a computed one.

    Args:
        query: A file is decoded as the space's photos were.
        catalog: Has the stored vectors.
        space: The space that is searched.
        open_embedder: Called only if the vector is neither stored nor in `cache`.
        cache: Vectors of files that were computed before.

    Raises:
        PhotoError: The file cannot be read or decoded.
    """
    if isinstance(query, Image.Image):
        return QueryVector(embed_image(upright_rgb(query), open_embedder()))
    data, path = _query_bytes(query)
    name = digest(data)
    content_id = catalog.content_id(name)
    stored = None if content_id is None else catalog.vector(space.space_id, content_id)
    if stored is not None:
        return QueryVector(stored, content_id)
    vector = None if cache is None else cache.get(space, name)
    if vector is None:
        embedder = open_embedder()
        shrink_to = decode_target(space.decode, embedder.input_size)
        vector = embed_image(decode(data, path=path, shrink_to=shrink_to).image, embedder)
        if cache is not None:
            cache.put(space, name, vector)
    return QueryVector(vector)


def query_image(query: Query, shrink_to: int | None = None) -> Image.Image:
    """Return the query as an upright RGB image.

    Args:
        query: A path, a file's bytes, or an image.
        shrink_to: As for `photos.decode`.

    Raises:
        PhotoError: The file cannot be read or decoded.
    """
    if isinstance(query, Image.Image):
        return upright_rgb(query)
    data, path = _query_bytes(query)
    return decode(data, path=path, shrink_to=shrink_to).image


def embed_image(image: Image.Image, embedder: GuardedEmbedder | ProjectedEmbedder) -> NDArray[np.float32]:
    """Embed one image.

    Args:
        image: RGB.
        embedder: The space's.

    Returns:
        (D,) float32 of unit length.
    """
    with translate_memory_errors("look at a single photo"):
        vector: NDArray[np.float32] = embedder.embed(embedder.prepare(image)[None])[0]
    return vector


def require_file(path: str) -> str:
    """Return `path` if there is still a file.

    Raises:
        PhotoError: There is none; it says what to do.
    """
    if not os.path.isfile(path):
        raise PhotoError(path, "the file is not on disk any more; index its folder again")
    return path


def _query_bytes(query: str | os.PathLike[str] | bytes) -> tuple[bytes, str | None]:
    """The file's bytes, and its path where it has one."""
    if isinstance(query, bytes):
        return query, None
    path = os.path.abspath(os.path.expanduser(os.fspath(query)))
    return read_photo(path), path
