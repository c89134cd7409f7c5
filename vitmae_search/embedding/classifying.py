"""The guard around classifiers, the optional half of a plugin."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitmae_search.embedding.guard_prepare import blame, enough_memory
from vitmae_search.embedding.guarded import Guarded, check_device
from vitmae_search.embedding.plugin import Classifier, ClassifierOpener, EmbedderPlugin, PluginInfo
from vitmae_search.errors import PluginBroken, PluginError

_SUM = 1e-3
"""How far a row's sum may lie from 1: rounding over thousands of classes stays below."""


def open_classifier(
    plugin: EmbedderPlugin, model: str, device: str = "auto", precision: str = "auto"
) -> GuardedClassifier:
    """Open a classifier of the plugin, checked. `device` and `precision` are as for `open_embedder`.

    Raises `PluginError` where the plugin has none, `PluginBroken`, `DeviceError`, and what the plugin
    raises for a person (`ModelNotFound`, `CheckpointError`, ...).
    """
    check_device(device, precision)
    info = plugin.info
    if "classify" not in info.capabilities or not isinstance(plugin, ClassifierOpener):
        raise PluginError(info.name, "it cannot classify photos; see `vitmae-search plugins`")
    with enough_memory("open the model"), blame(info.name, "open_classifier"):
        opened = plugin.open_classifier(model, device=device, precision=precision)
    try:
        return GuardedClassifier(info, opened)
    except PluginBroken:
        with contextlib.suppress(Exception):
            opened.close()
        raise


class GuardedClassifier(Guarded):
    """An open classifier whose every answer is checked. Satisfies `contract.Classifier`.

    One `classify`, `rest` or `close` runs at a time, behind a lock; `prepare` runs whenever it likes.
    """

    def __init__(self, info: PluginInfo, classifier: Classifier) -> None:
        super().__init__(info, classifier, "classifier")
        self._classifier = classifier
        with blame(info.name, "reading the classifier's attributes"):
            labels = list(classifier.labels)
        fits = bool(labels) and all(_is_text(label) for label in labels)
        self.labels: tuple[str, ...] = tuple(self._expect(fits, "labels", labels, "one text or more"))

    def classify(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(N, *shape) of `dtype` to (N, len(labels)) float32 probabilities, each row ≥ 0 with the sum 1.

        N may be 0. Raises `PluginBroken`; MemoryError where the batch is too large; ValueError for a batch
        that `prepare` did not make.
        """
        self._check_batch(batch)
        if len(batch) == 0:
            return np.empty((0, len(self.labels)), np.float32)
        with self._at_work("classify"):
            probabilities = self._classifier.classify(batch)
        check_probabilities(self.info.name, probabilities, len(batch), len(self.labels))
        return probabilities


def check_probabilities(plugin: str, found: object, rows: int, labels: int) -> None:
    """Raise `PluginBroken` unless `found` is what `classify` must give for `rows` images."""
    if not isinstance(found, np.ndarray):
        raise PluginBroken(plugin, f"classify gave a {type(found).__name__}; it must be a NumPy array")
    if found.dtype != np.float32:
        raise PluginBroken(plugin, f"classify gave {found.dtype}; it must be float32")
    if found.shape != (rows, labels):
        raise PluginBroken(plugin, f"classify gave shape {found.shape}; it must be {(rows, labels)}")
    if not found.flags.c_contiguous:
        raise PluginBroken(plugin, "classify gave an array that is not C-contiguous")
    sums = found.sum(axis=1, dtype=np.float64)
    right = np.isfinite(found).all(axis=1) & (found >= 0).all(axis=1) & (np.abs(sums - 1) <= _SUM)
    if not right.all():
        row = int(np.flatnonzero(~right)[0])
        rule = "they must be finite, not negative, and sum to 1"
        raise PluginBroken(plugin, f"classify gave no probabilities in row {row} of {rows}: {rule}")


def _is_text(label: object) -> bool:
    try:
        return type(label) is str and bool(label.strip()) and bool(label.encode("utf-8"))
    except UnicodeEncodeError:
        return False
