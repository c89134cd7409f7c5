"""A plugin for tests that stops until it is told to go on, so that a test can observe a running index.

It embeds five photos, and the others once a file `gate` exists beside it.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from PIL import Image

from vitmae_search.embedding import Embedder, EmbedderPlugin, Options, PluginInfo

GATE = Path(__file__).with_name("gate")
REPEAT = 20


def prepare(image: Image.Image, /) -> np.ndarray:
    """An 8×8 thumbnail, enlarged to the size that a real model's input has, so that batches are as small."""
    grid = np.asarray(image.convert("RGB").resize((8, 8)))
    return grid.repeat(REPEAT, axis=0).repeat(REPEAT, axis=1)


class Gated(Embedder):
    model = "gated"
    dimension = 192
    input_size = 8
    identity = {"side": 8}  # noqa: RUF012 - nobody changes it
    prepare = staticmethod(prepare)
    embedded = 0

    def embed(self, batch: np.ndarray) -> np.ndarray:
        self.embedded += len(batch)
        while self.embedded > 5 and not GATE.exists():
            time.sleep(0.02)
        rows = batch[:, ::REPEAT, ::REPEAT].reshape(len(batch), -1).astype(np.float32) + 1
        return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


class Plugin(EmbedderPlugin):
    info = PluginInfo(name="gated", title="Gated")

    def open(self, options: Options, *, device: str, precision: str) -> Gated:
        return Gated()


plugin = Plugin()
