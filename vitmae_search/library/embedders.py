"""The embedders that are open."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from vitmae_search.embedding import (
    GuardedClassifier,
    GuardedEmbedder,
    ModelLister,
    PluginHost,
    open_classifier,
    open_embedder,
    resolve_options,
)
from vitmae_search.errors import SpaceError
from vitmae_search.library.choice import EmbedderChoice
from vitmae_search.photos import DECODE_REVISION
from vitmae_search.records import ModelListing, Space

log = logging.getLogger(__name__)

DEFAULT_PLUGIN = "vitmae"
DEFAULT_DECODE = "scaled"


class Embedders:
    """Opens embedders when they are needed, each once, and keeps them until `close`. Thread-safe."""

    def __init__(self, plugin_folders: Sequence[Path], device: str, precision: str) -> None:
        self.host = PluginHost(plugin_folders)
        self.device, self._precision = device, precision
        self._lock = threading.Lock()
        self._open: dict[str, GuardedEmbedder] = {}
        self._outdated: list[GuardedEmbedder] = []

    def open(self, plugin: str, options: Mapping[str, object]) -> GuardedEmbedder:
        """The embedder of `plugin` with `options`. Raises `PluginError`, `ModelError`, `DeviceError`."""
        key = self._key(plugin, options)
        with self._lock:
            if key not in self._open:
                self._open[key] = self.load(plugin, options)
            return self._open[key]

    def load(self, plugin: str, options: Mapping[str, object]) -> GuardedEmbedder:
        """As `open`, but a new one, for the caller to close."""
        return open_embedder(self.host.get(plugin), options, self.device, self._precision)

    def open_classifier(self, plugin: str, model: str) -> GuardedClassifier:
        """A classifier of `plugin`, for the caller to close. Raises what `open` does."""
        return open_classifier(self.host.get(plugin), model, self.device, self._precision)

    def of_space(self, space: Space) -> GuardedEmbedder:
        """The embedder that made the vectors of `space`, which is no derived one.

        Raises `SpaceError` if it has changed since.
        """
        with self._lock:
            embedder = next((one for one in self._open.values() if made_features(one, space)), None)
            return embedder or self._loaded_for(space)

    def reconstructor(self, choice: EmbedderChoice, current: Space | None) -> GuardedEmbedder:
        """The chosen model, else the current space's if it can reconstruct, else the bundled one."""
        if choice.explicit:
            return self.open(choice.plugin or DEFAULT_PLUGIN, choice.all_options())
        able = {listed.name for listed in self.host.listings() if "reconstruct" in listed.capabilities}
        if current is not None and current.plugin in able:
            return self.open(current.plugin, current.options)
        return self.open(DEFAULT_PLUGIN, {})

    def models(self) -> list[ModelListing]:
        """What the plugins that have `models()` can name. One that fails is logged and left out."""
        listings: list[ModelListing] = []
        for listed in self.host.listings():
            plugin = self.host.get(listed.name) if listed.error is None else None
            if isinstance(plugin, ModelLister):
                try:
                    listings += [replace(model, plugin=listed.name) for model in plugin.models()]
                except Exception:  # a plugin may raise anything
                    log.warning("plugin %r cannot list its models", listed.name, exc_info=True)
        return listings

    def close(self) -> None:
        """Give the memory of every open model back. Raises `PluginBroken` where one cannot, at the end."""
        with self._lock, ExitStack() as closing:
            for embedder in (*self._open.values(), *self._outdated):
                closing.callback(embedder.close)
            self._open.clear()
            self._outdated.clear()

    def resolved(self, plugin: str, options: Mapping[str, object]) -> Mapping[str, object]:
        """Every option of the plugin, with the values of those given. Raises `PluginError`."""
        return resolve_options(self.host.get(plugin).info, options)

    def _key(self, plugin: str, options: Mapping[str, object]) -> str:
        return json.dumps([plugin, self.resolved(plugin, options)], sort_keys=True)

    def _loaded_for(self, space: Space) -> GuardedEmbedder:
        """Loaded anew, even if it is open: its file may have changed since, and the space come from that."""
        embedder = self.load(space.plugin, space.options)
        if not made_features(embedder, space):
            embedder.close()
            raise SpaceError(
                f"the model {space.model!r} has changed since space {space.space_id} was made, so old and "
                "new vectors cannot be compared; index again to make a new space, then `spaces use` it"
            )
        key = self._key(space.plugin, space.options)
        if key in self._open:  # closed at the end: another thread may be using it
            self._outdated.append(self._open[key])
        self._open[key] = embedder
        return embedder


def space_fingerprint(embedder: GuardedEmbedder, decode: str) -> str:
    """The fingerprint of the features that the embedder makes of photos decoded in this mode."""
    return embedder.fingerprint(f"{decode}-{DECODE_REVISION}")


def made_features(embedder: GuardedEmbedder, space: Space) -> bool:
    """Whether the embedder makes the vectors of `space`, which is no derived one."""
    return space_fingerprint(embedder, space.decode) == space.fingerprint
