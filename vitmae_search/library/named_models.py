"""Models that a call names, beside those of the library's spaces: opened when asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from vitmae_search.embedding import GuardedEmbedder
from vitmae_search.library.embedders import (
    DEFAULT_PLUGIN,
    Embedders,
    EmbedderSelection,
    file_stamps,
    split_model,
)

KEPT: Final = 2
"""How many stay open: to compare two."""


class NamedModels:
    """Opens models by name. Those used last stay open; a checkpoint that was written since is read again.

    So a training's model is always its newest one. Thread-safe.

    Args:
        embedders: The library's.
    """

    def __init__(self, embedders: Embedders) -> None:
        self._embedders = embedders
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[GuardedEmbedder, Mapping[str, object]]] = OrderedDict()

    @contextmanager
    def opened(self, model: str) -> Iterator[GuardedEmbedder]:
        """The embedder with a model, which stays open inside the block; others wait meanwhile.

        Args:
            model: As `--model` names it.

        Raises:
            PluginError: The plugin is not there or does not work.
            ModelError: The model cannot be loaded.
            DeviceError: The device is not there or lacks memory.
        """
        with self._lock:
            yield self._get(model)

    def close(self) -> None:
        """Close all models."""
        with self._lock:
            while self._open:
                self._open.popitem()[1][0].close()

    def _get(self, model: str) -> GuardedEmbedder:
        selection = EmbedderSelection(*split_model(None, model))
        options = selection.all_options()
        key = f"{selection.plugin} {options.get('model')}"
        if key in self._open:
            embedder, stamps = self._open.pop(key)
            if file_stamps(embedder.source_files or ()) != stamps:
                embedder.close()
                return self._load(key, selection, options)
            self._open[key] = embedder, stamps
            return embedder
        return self._load(key, selection, options)

    def _load(self, key: str, selection: EmbedderSelection, options: Mapping[str, object]) -> GuardedEmbedder:
        while len(self._open) >= KEPT:
            self._open.popitem(last=False)[1][0].close()
        embedder = self._embedders.load(selection.plugin or DEFAULT_PLUGIN, options)
        self._open[key] = embedder, file_stamps(embedder.source_files or ())
        return embedder
