"""Models that a call names, beside those of the library's spaces: opened when asked for."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from vitmae_search.embedding import GuardedEmbedder
from vitmae_search.library.embedders import (
    DEFAULT_PLUGIN,
    Embedders,
    EmbedderSelection,
    file_stamps,
    offload_idle,
    split_model,
    unchanged_since,
)

KEPT: Final = 2
"""How many stay open: to compare two."""


@dataclass(slots=True, eq=False)
class _OpenModel:
    """An open model.

    Attributes:
        embedder: It.
        stamps: Of the files that it was read from; None where they were written while it was read.
        users: How many use it now.
    """

    embedder: GuardedEmbedder
    stamps: Mapping[str, object] | None
    users: int = 0

    @property
    def current(self) -> bool:
        """Whether its files are those that it was read from."""
        return file_stamps(self.embedder.source_files or ()) == self.stamps


class NamedModels:
    """Opens models by name. Those used last stay open; a checkpoint that was written since is read again.

    So a training's model is always its newest one. Thread-safe; one model is opened at a time.

    Args:
        embedders: The library's.
    """

    def __init__(self, embedders: Embedders) -> None:
        self._embedders = embedders
        self._opening, self._lock = threading.Lock(), threading.Lock()
        self._open: OrderedDict[str, _OpenModel] = OrderedDict()

    @contextmanager
    def opened(self, model: str) -> Iterator[GuardedEmbedder]:
        """The embedder with a model, which stays open inside the block. Others may use it meanwhile.

        Args:
            model: As `--model` names it.

        Raises:
            PluginError: The plugin is not there or does not work.
            ModelError: The model cannot be loaded.
            DeviceError: The device is not there or lacks memory.
        """
        selection = EmbedderSelection(*split_model(None, model))
        options = selection.all_options()
        key = f"{selection.plugin} {options.get('model')}"
        found = self._taken(key)
        if found is None:
            with self._opening:
                found = self._taken(key) or self._load(key, selection.plugin or DEFAULT_PLUGIN, options)
        try:
            yield found.embedder
        finally:
            self._give_back(found)

    def offload(self, *, after: float = 0.0) -> int:
        """As `Embedders.offload`.

        Args:
            after: Only those that were not used for so many seconds.

        Returns:
            How many were offloaded.
        """
        with self._lock:
            embedders = [each.embedder for each in self._open.values()]
        return offload_idle(embedders, after)

    def close(self) -> None:
        """Close all models."""
        with self._opening, self._lock:
            while self._open:
                self._open.popitem()[1].embedder.close()

    def _taken(self, key: str) -> _OpenModel | None:
        """An open model for the caller to give back; None where it is to be read."""
        with self._lock:
            found = self._open.get(key)
            if found is None or not found.current:
                return None
            self._open.move_to_end(key)
            found.users += 1
            return found

    def _load(self, key: str, plugin: str, options: Mapping[str, object]) -> _OpenModel:
        """Read a model for the caller to give back. Only once it is read are others closed for it."""
        opened_at = time.time()
        embedder = self._embedders.load(plugin, options)
        stamps = file_stamps(embedder.source_files or ())
        found = _OpenModel(embedder, stamps if unchanged_since(stamps, opened_at) else None, users=1)
        with self._lock:
            left = [self._open.pop(key)] if key in self._open else []
            self._open[key] = found
            while len(self._open) > KEPT:
                left.append(self._open.popitem(last=False)[1])
            unused = [each for each in left if not each.users]
        for each in unused:
            each.embedder.close()
        return found

    def _give_back(self, found: _OpenModel) -> None:
        """Close a model that is not kept, after its last user."""
        with self._lock:
            found.users -= 1
            kept = any(each is found for each in self._open.values())
        if not kept and not found.users:
            found.embedder.close()
