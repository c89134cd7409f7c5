"""A plugin that embeds and classifies with NumPy alone, and whose features leave much to learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.helpers.mean_dominated_plugin import MeanDominated, prepare
from vitmae_search.embedding import Classifier, EmbedderPlugin, Options, PluginInfo


class Plain(MeanDominated):
    model = "plain"


class Colours(Classifier):
    model = "colours"
    identity = {"revision": 1}  # noqa: RUF012
    input_size = 8
    labels = ("red", "green", "blue")
    prepare = staticmethod(prepare)

    def classify(self, batch: np.ndarray) -> np.ndarray:
        means = batch.reshape(len(batch), -1, 3).mean(axis=1) + 1.0
        return np.ascontiguousarray(means / means.sum(axis=1, keepdims=True), dtype=np.float32)


class Plugin(EmbedderPlugin):
    info = PluginInfo(
        name="plain", title="Plain", capabilities=frozenset({"embed", "classify"}), options={"side": 8}
    )

    def open(self, options: Options, *, device: str, precision: str) -> Plain:
        return Plain()

    def open_classifier(self, model: str, *, device: str, precision: str) -> Any:
        return Colours()


plugin = Plugin()
