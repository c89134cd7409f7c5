"""An embedder and a projection, taken together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitmae_search.embedding.plugin import Embedder
from vitmae_search.embedding.projection import Projection


class ProjectedEmbedder:
    """An embedder whose vectors are the projection of another one's. Satisfies `contract.Embedder`.

    `close` closes the other one. Raises `ModelError` where the two do not fit.
    """

    def __init__(self, embedder: Embedder, projection: Projection) -> None:
        projection.check_fits(embedder.dimension)
        self._embedder, self._projection = embedder, projection
        self.model, self.provenance = embedder.model, embedder.provenance
        self.identity = {"features": embedder.identity, "projection": projection.digest}
        self.dimension = projection.dimension
        self.input_size, self.prepare = embedder.input_size, embedder.prepare

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """As `contract.Embedder.embed`."""
        return self._projection(self._embedder.embed(batch))

    def close(self) -> None:
        self._embedder.close()
