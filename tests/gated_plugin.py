"""A plugin for tests: colours of a coarse grid. It embeds five photos, and the others once a file `gate`
lies beside it, so that a test catches an index run at work.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitmae_search.embedding import Embedder, EmbedderPlugin, Options, PluginInfo

GATE = Path(__file__).with_name("gate")


EACH = 20


def prepare(image: Image.Image, /) -> np.ndarray:
    """As large as a photo for a real model, so that batches are as small."""
    grid = np.asarray(image.convert("RGB").resize((8, 8)))
    return grid.repeat(EACH, axis=0).repeat(EACH, axis=1)


class Gated(Embedder):
    model = "gated"
    dimension = 192
    input_size: int | None = 8
    identity: Mapping[str, Any] = {"side": 8}
    provenance: Mapping[str, Any] = {}
    prepare = staticmethod(prepare)
    seen = 0

    def embed(self, batch: np.ndarray) -> np.ndarray:
        self.seen += len(batch)
        while self.seen > 5 and not GATE.exists():
            time.sleep(0.02)
        rows = batch[:, ::EACH, ::EACH].reshape(len(batch), -1).astype(np.float32) + 1
        return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    def close(self) -> None:
        pass


class Plugin(EmbedderPlugin):
    info = PluginInfo(name="gated", title="Gated")

    def open(self, options: Options, *, device: str, precision: str) -> Gated:
        return Gated()


plugin = Plugin()
