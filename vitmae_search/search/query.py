"""From a query (a file, bytes or an image) to its vectors."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.address import absolute_path, is_address
from vitmae_search.catalog import Catalog
from vitmae_search.embedding import GuardedEmbedder, ProjectedEmbedder, translate_memory_errors
from vitmae_search.errors import PhotoError
from vitmae_search.photos import PHOTO_PROCESSES, decode_target, digest, path_on_disk, upright_rgb
from vitmae_search.photos.decode_pool import launch_workers
from vitmae_search.records import QueryVariant, Space, file_of
from vitmae_search.search.variants import AS_IT_IS, turned_variants, turns, upright_variants

Query = str | os.PathLike[str] | bytes | Image.Image
"""A path, a file's bytes, or an image."""


Vectors = dict[QueryVariant, NDArray[np.float32]]
"""Vectors (D,) of unit length, by the variant of the picture that they are of."""


class QueryCache:
    """The vectors of the last queries that a model embedded. Safe for threads.

    Another filter, or another page of results, repeats the query.
    """

    def __init__(self, capacity: int = 32) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._vectors: OrderedDict[tuple[str, str], Vectors] = OrderedDict()

    def get(self, space: Space, digest: str) -> Vectors:
        """Return a query's vectors, as far as they are kept.

        Args:
            space: The space that is searched.
            digest: Of the query's bytes.
        """
        with self._lock:
            return dict(self._vectors.get((space.fingerprint, digest), {}))

    def put(self, space: Space, digest: str, vectors: Vectors) -> None:
        """Keep a query's vectors in place of the oldest one's.

        Args:
            space: The space that is searched.
            digest: Of the query's bytes.
            vectors: Those of its variants that were computed.
        """
        with self._lock:
            self._vectors[space.fingerprint, digest] = dict(vectors)
            while len(self._vectors) > self._capacity:
                self._vectors.popitem(last=False)


class QueryVectors:
    """The vectors of a query: the stored one, else those of its variants, computed when they are asked for.

    Attributes:
        content_id: The content that its vector is stored for; None where a model has to embed it.
    """

    def __init__(
        self,
        query: Query,
        catalog: Catalog,
        space: Space,
        open_embedder: Callable[[], GuardedEmbedder | ProjectedEmbedder],
        cache: QueryCache | None = None,
    ) -> None:
        """Look the query up.

        Args:
            query: A file is decoded as the space's photos were.
            catalog: Has the stored vectors.
            space: The space that is searched.
            open_embedder: Called only if a vector is neither stored nor in `cache`.
            cache: Vectors of files that were computed before.

        Raises:
            PhotoError: The file cannot be read.
        """
        self.content_id: int | None = None
        self._query, self._space, self._open_embedder, self._cache = query, space, open_embedder, cache
        self._images: dict[QueryVariant, Image.Image] = {}
        self._vectors: Vectors = {}
        self._digest = ""
        if isinstance(query, Image.Image):
            return
        data, self._path = _query_bytes(query)
        self._query, self._digest = data, digest(data)
        content_id = catalog.content_id(self._digest)
        stored = None if content_id is None else catalog.vector(space.space_id, content_id)
        if stored is not None:
            self.content_id, self._vectors = content_id, {AS_IT_IS: stored}
        elif cache is not None:
            self._vectors = cache.get(space, self._digest)
        if not self._vectors:
            launch_workers()  # while the model is loaded

    @property
    def known(self) -> bool:
        """Whether the vector was stored, so that no model runs."""
        return self.content_id is not None

    def as_it_is(self) -> NDArray[np.float32]:
        """The vector (D,) of the picture as it is.

        Raises:
            PhotoError: The file cannot be decoded.
        """
        if AS_IT_IS in self._vectors:
            return self._vectors[AS_IT_IS]
        vector: NDArray[np.float32] = embed_images([self._decoded()], self._open_embedder())[0]
        return vector

    def upright(self) -> Vectors:
        """The vectors of the picture as it is and, if it has borders, without them.

        Raises:
            PhotoError: The file cannot be decoded.
        """
        if not self._vectors:
            self._embed(self._upright_images())
        return {variant: vector for variant, vector in self._vectors.items() if not variant.turned}

    def guess_turned(self, upright: QueryVariant) -> Vectors | None:
        """About the vectors of an upright variant's three quarter turns, which costs next to nothing.

        None where the space has no way to guess them.
        """
        embedder = self._open_embedder()
        if not isinstance(embedder, ProjectedEmbedder):
            return None
        guessed = embedder.guess_turned(self._vectors[upright][None])
        return None if guessed is None else dict(zip(turns(upright), guessed[:, 0], strict=True))

    def turned(self, upright: QueryVariant, wanted: Sequence[QueryVariant]) -> Vectors:
        """The vectors of some of an upright variant's three quarter turns.

        Args:
            upright: The variant.
            wanted: Which of its turns.
        """
        missing = [variant for variant in wanted if variant not in self._vectors]
        if missing:
            image = self._upright_images()[upright]
            self._embed(turned_variants(missing, image, self._open_embedder().input_size))
        return {variant: self._vectors[variant] for variant in wanted}

    def _upright_images(self) -> dict[QueryVariant, Image.Image]:
        if not self._images:
            self._images = upright_variants(self._decoded(), self._open_embedder().input_size)
        return self._images

    def _decoded(self) -> Image.Image:
        if isinstance(self._query, Image.Image):
            return upright_rgb(self._query)
        assert isinstance(self._query, bytes)
        shrink_to = decode_target(self._space.decode, self._open_embedder().input_size)
        return PHOTO_PROCESSES.decode(self._query, path=self._path, shrink_to=shrink_to).image

    def _embed(self, images: Mapping[QueryVariant, Image.Image]) -> None:
        vectors = embed_images(list(images.values()), self._open_embedder())
        self._vectors.update(zip(images, vectors, strict=True))
        if self._cache is not None and self._digest:
            self._cache.put(self._space, self._digest, self._vectors)


def query_image(query: Query, shrink_to: int | None = None) -> Image.Image:
    """Return the query as an upright RGB image.

    Args:
        query: A path, a file's bytes, or an image.
        shrink_to: As for `photos.decode`.

    Raises:
        PhotoError: The file cannot be read or decoded.
    """
    return query_picture(query, shrink_to)[0]


def query_picture(query: Query, shrink_to: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """The query as an upright RGB image, which may be scaled down, and its own width and height.

    Args:
        query: A path, a file's bytes, or an image.
        shrink_to: As for `photos.decode`.

    Raises:
        PhotoError: The file cannot be read or decoded.
    """
    if isinstance(query, Image.Image):
        image = upright_rgb(query)
        return image, image.size
    data, path = _query_bytes(query)
    decoded = PHOTO_PROCESSES.decode(data, path=path, shrink_to=shrink_to)
    return decoded.image, (decoded.metadata.width, decoded.metadata.height)


def embed_images(
    images: Sequence[Image.Image], embedder: GuardedEmbedder | ProjectedEmbedder
) -> NDArray[np.float32]:
    """Embed the variants of one picture in one batch.

    Args:
        images: n RGB images.
        embedder: The space's.

    Returns:
        (n, D) float32, rows of unit length.
    """
    prepared = np.stack([embedder.prepare(image) for image in images])
    with translate_memory_errors("look at a single photo"):
        try:
            return embedder.embed(prepared)
        except MemoryError:
            if len(images) == 1:
                raise
        return np.concatenate([embedder.embed(one[None]) for one in prepared])


def require_file(path: str) -> str:
    """Return `path` if there is still a file.

    Raises:
        PhotoError: There is none; it says what to do.
    """
    if not is_address(path) and not os.path.isfile(file_of(path)):
        raise PhotoError(path, "the file is not on disk any more; index its folder again")
    return path


def _query_bytes(query: str | os.PathLike[str] | bytes) -> tuple[bytes, str | None]:
    """The file's bytes, and its path where it has one."""
    if isinstance(query, bytes):
        return query, None
    path = path_on_disk(absolute_path(query))
    return PHOTO_PROCESSES.read(path), path
