"""A plugin that knows words: a photo's vector is its mean color, and so is that of a color's name."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from vitmae_search.embedding import Embedder, EmbedderPlugin, Options, PluginInfo


def prepare(image: Image.Image, /) -> NDArray[np.uint8]:
    return np.array(image.resize((4, 4)))


class ColorWords(Embedder):
    model = "color-words"
    dimension = 48
    prepare = staticmethod(prepare)

    def __init__(self) -> None:
        self.identity = {"side": 4}
        self.provenance = {"device": "cpu", "precision": "fp32"}

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        rows = batch.reshape(len(batch), -1) / 255.0 - 0.45
        return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def embed_text(self, text: str) -> NDArray[np.float32]:
        """Of the first word that names a color; of no color's own, where none does."""
        for word in text.lower().split():
            if word in ImageColor.colormap:
                return self.embed(prepare(Image.new("RGB", (4, 4), word))[None])[0]
        other = hashlib.sha256(text.encode()).digest()[:3]
        return self.embed(prepare(Image.new("RGB", (4, 4), tuple(other)))[None])[0]


class ColorWordsPlugin(EmbedderPlugin):
    info = PluginInfo(name="color_words", title="Colors and their names", options={"model": "colors"})

    def open(self, options: Options, *, device: str, precision: str) -> ColorWords:
        return ColorWords()


plugin = ColorWordsPlugin()
