"""Words as a query: text to a vector that is compared with those of photos."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vitmae_search.embedding import GuardedEmbedder
from vitmae_search.errors import LibraryError
from vitmae_search.photos import digest
from vitmae_search.records import LONGEST_TEXT, Space, Words
from vitmae_search.search.query import QueryCache
from vitmae_search.search.variants import AS_IT_IS


def words_vector(
    words: Words, space: Space, open_embedder: Callable[[], GuardedEmbedder], cache: QueryCache
) -> NDArray[np.float32]:
    """The vector (D,) of a text.

    Args:
        words: The text.
        space: A space of features whose model knows words.
        open_embedder: Called only if the vector is not in `cache`.
        cache: Vectors that were computed before.

    Raises:
        LibraryError: The text is blank, or too long.
        NoText: The model does not know words.
    """
    text = " ".join(words.text.encode("utf-8", "replace").decode("utf-8").split())
    if not 0 < len(text) <= LONGEST_TEXT:
        raise LibraryError(f"words to search for have 1 to {LONGEST_TEXT} characters")
    key = "words " + digest(text.encode("utf-8"))
    known = cache.get(space, key)
    if AS_IT_IS not in known:
        known = {AS_IT_IS: open_embedder().embed_text(text)}
        cache.put(space, key, known)
    return known[AS_IT_IS]
