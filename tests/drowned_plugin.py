"""A plugin for tests: pixels of a thumbnail, drowned by the mean colour, which a change of tone changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from vitmae_search.embedding import Embedder, EmbedderPlugin, Options, PluginInfo


def prepare(image: Image.Image, /) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BOX))


class Drowned(Embedder):
    model = "drowned"
    dimension = 195
    input_size: int | None = 8
    identity: Mapping[str, Any] = {"side": 8}
    provenance: Mapping[str, Any] = {}
    prepare = staticmethod(prepare)

    def embed(self, batch: np.ndarray) -> np.ndarray:
        means = batch.reshape(len(batch), -1, 3).mean(axis=1)
        rows = np.concatenate([batch.reshape(len(batch), -1), 300 * means], axis=1) + 1.0
        return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)

    def close(self) -> None:
        pass


class Plugin(EmbedderPlugin):
    info = PluginInfo(name="drowned", title="Drowned", options={"side": 8})

    def open(self, options: Options, *, device: str, precision: str) -> Drowned:
        return Drowned()


plugin = Plugin()
