"""A plugin for tests, whose features leave much to learn.

Its vectors are the pixels of a thumbnail and, with a large weight, the mean colour. A change of tone changes
the mean colour and so nearly the whole vector, which a trained projection can undo.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from vitmae_search.embedding import Embedder, EmbedderPlugin, Options, PluginInfo


def prepare(image: Image.Image, /) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BOX))


class MeanDominated(Embedder):
    model = "mean_dominated"
    dimension = 195
    input_size = 8
    identity = {"side": 8}  # noqa: RUF012 - nobody changes it
    prepare = staticmethod(prepare)

    def embed(self, batch: np.ndarray) -> np.ndarray:
        means = batch.reshape(len(batch), -1, 3).mean(axis=1)
        rows = np.concatenate([batch.reshape(len(batch), -1), 300 * means], axis=1) + 1.0
        return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


class Plugin(EmbedderPlugin):
    info = PluginInfo(name="mean_dominated", title="Mean-dominated", options={"side": 8})

    def open(self, options: Options, *, device: str, precision: str) -> MeanDominated:
        return MeanDominated()


plugin = Plugin()
