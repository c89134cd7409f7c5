"""The embedders that are open."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from vitmae_search.embedding import (
    EmbedderDescription,
    GuardedClassifier,
    GuardedEmbedder,
    ModelLister,
    PluginHost,
    code_digest,
    open_classifier,
    open_embedder,
    resolve_options,
)
from vitmae_search.errors import SpaceError, VitmaeSearchError
from vitmae_search.library.choice import EmbedderChoice
from vitmae_search.library.remembered import Asked, recall, remember
from vitmae_search.photos import DECODE_REVISION
from vitmae_search.records import ModelListing, Space

log = logging.getLogger(__name__)

DEFAULT_PLUGIN = "vitmae"
DEFAULT_DECODE = "scaled"


@dataclass(frozen=True, slots=True)
class KnownEmbedder:
    """What an embedder is. `open` gives the embedder itself, which need not have been loaded for that.

    `open` raises what `Embedders.open` does, and `SpaceError` where the model has changed since.
    """

    description: EmbedderDescription
    open: Callable[[], GuardedEmbedder]

    @classmethod
    def of(cls, embedder: GuardedEmbedder) -> KnownEmbedder:
        """One that is open."""
        return cls(embedder.description, lambda: embedder)


class Embedders:
    """Opens embedders when they are needed, each once, and keeps them until `close`. Thread-safe."""

    def __init__(self, plugin_folders: Sequence[Path], device: str, precision: str) -> None:
        self.host = PluginHost(plugin_folders)
        self.device, self._precision = device, precision
        self._lock = threading.Lock()
        self._open: dict[str, GuardedEmbedder] = {}
        self._outdated: list[GuardedEmbedder] = []
        self._code = code_digest("vitmae_search")  # of what runs: it may be exchanged on disk

    def open(self, plugin: str, options: Mapping[str, object]) -> GuardedEmbedder:
        """The embedder of `plugin` with `options`. Raises `PluginError`, `ModelError`, `DeviceError`."""
        key = self._key(plugin, options)
        with self._lock:
            if key not in self._open:
                self._open[key] = self.load(plugin, options)
            return self._open[key]

    def load(self, plugin: str, options: Mapping[str, object]) -> GuardedEmbedder:
        """As `open`, but a new one, for the caller to close."""
        opened_at = time.time()
        embedder = open_embedder(self.host.get(plugin), options, self.device, self._precision)
        remember(self._asked(plugin, options), embedder, opened_at)
        return embedder

    def known(self, plugin: str, options: Mapping[str, object]) -> KnownEmbedder:
        """As `open`, but one that is remembered from before is not loaded."""
        with self._lock:
            embedder = self._open.get(self._key(plugin, options))
        description = None if embedder else recall(self._asked(plugin, options))
        if description is None:
            return KnownEmbedder.of(embedder or self.open(plugin, options))
        return KnownEmbedder(description, lambda: self._opened_as(description, plugin, options))

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

    def known_of_space(self, space: Space) -> KnownEmbedder:
        """As `of_space`, but one that is remembered from before is not loaded."""
        with self._lock:
            is_open = any(made_features(one, space) for one in self._open.values())
        description = None if is_open else recall(self._asked(space.plugin, space.options))
        if description is None or not made_features(description, space):
            return KnownEmbedder.of(self.of_space(space))
        return KnownEmbedder(description, lambda: self.of_space(space))

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

    def rest(self, *, after: float = 0.0) -> int:
        """See `GuardedEmbedder.rest`, for every open model. Returns how many did."""
        with self._lock:
            every = (*self._open.values(), *self._outdated)
        rested = 0
        for embedder in every:
            try:
                rested += embedder.rest(after=after)
            except VitmaeSearchError as error:
                log.warning("a model keeps its device's memory: %s", error)
        return rested

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

    def _asked(self, plugin: str, options: Mapping[str, object]) -> Asked:
        code, resolved = self.host.code(plugin), self.resolved(plugin, options)
        both = None if code is None or self._code is None else f"{self._code} {code}"
        return Asked(self.host.get(plugin).info, both, resolved, self.device, self._precision)

    def _opened_as(
        self, description: EmbedderDescription, plugin: str, options: Mapping[str, object]
    ) -> GuardedEmbedder:
        embedder = self.open(plugin, options)
        if embedder.identity != description.identity:
            raise SpaceError(f"the model {embedder.model!r} has just changed; run the same command again")
        return embedder

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


def space_fingerprint(embedder: GuardedEmbedder | EmbedderDescription, decode: str) -> str:
    """The fingerprint of the features that the embedder makes of photos decoded in this mode."""
    return embedder.fingerprint(f"{decode}-{DECODE_REVISION}")


def made_features(embedder: GuardedEmbedder | EmbedderDescription, space: Space) -> bool:
    """Whether the embedder makes the vectors of `space`, which is no derived one."""
    return space_fingerprint(embedder, space.decode) == space.fingerprint
