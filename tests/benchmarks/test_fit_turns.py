"""The script that fits the maps of turned pictures, on a few small pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.fit_turns import ANGLES, turned_vectors
from vitmae_search.embedding import PluginHost, Projection, open_embedder


def test_photos_are_embedded_in_four_orientations(pieces: Path) -> None:
    embedder = open_embedder(PluginHost().get("color_layout"))
    width = embedder.dimension
    same = Projection([np.eye(width)], [np.zeros(width)], "head")
    paths = [str(path) for path in sorted(pieces.glob("*.png"))[:3]]
    vectors = turned_vectors(embedder, same, paths)
    assert tuple(vectors) == ANGLES
    assert {own.shape for own in vectors.values()} == {(3, width)}
    assert not np.allclose(vectors[0], vectors[90], atol=1e-3)
