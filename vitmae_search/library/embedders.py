"""Which embedder belongs to which space, and the ones that are open."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from vitmae_search.catalog import Catalog, CatalogWriter
from vitmae_search.embedding import (
    GuardedClassifier,
    GuardedEmbedder,
    ModelLister,
    PluginHost,
    open_classifier,
    open_embedder,
    resolve_options,
)
from vitmae_search.errors import PluginError, SpaceError
from vitmae_search.photos import DECODE_REVISION
from vitmae_search.records import ModelListing, Space

log = logging.getLogger(__name__)

DEFAULT_PLUGIN = "vitmae"
DEFAULT_DECODE = "scaled"


@dataclass(frozen=True, slots=True)
class EmbedderChoice:
    """What a person asked to embed with. None and no options: whatever the library uses."""

    plugin: str | None = None
    model: str | None = None
    options: Mapping[str, str] | None = None
    decode: str | None = None

    @property
    def explicit(self) -> bool:
        return bool(self.plugin or self.model or self.options or self.decode)

    def all_options(self) -> dict[str, object]:
        """The plugin's options, with `--model` among them; a path is made absolute."""
        options: dict[str, object] = dict(self.options or {})
        model = options.get("model") if self.model is None else self.model
        if isinstance(model, str):
            options["model"] = absolute_model(model)
        return options


def absolute_model(model: str) -> str:
    """A file or folder on this disk as an absolute path; any other name as it is."""
    path = os.path.expanduser(model)
    return os.path.abspath(path) if os.path.exists(path) else model


class Embedders:
    """Opens embedders when they are needed, each once, and keeps them until `close`. Thread-safe."""

    def __init__(self, plugin_folders: Sequence[Path], device: str, precision: str) -> None:
        self.host = PluginHost(plugin_folders)
        self._device, self._precision = device, precision
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
        return open_embedder(self.host.get(plugin), options, self._device, self._precision)

    def open_classifier(self, plugin: str, model: str) -> GuardedClassifier:
        """A classifier of `plugin`, for the caller to close. Raises what `open` does."""
        return open_classifier(self.host.get(plugin), model, self._device, self._precision)

    def for_index(self, choice: EmbedderChoice, catalog: CatalogWriter) -> tuple[GuardedEmbedder, Space]:
        """What `index` embeds with, and its space, made if it is new."""
        plugin, options, decode = _wanted(choice, catalog.current_space())
        embedder = self.open(plugin, options)
        space = catalog.ensure_space(
            fingerprint=_fingerprint(embedder, decode),
            plugin=plugin,
            model=embedder.model,
            dimension=embedder.dimension,
            decode=decode,
            options=embedder.options,
            identity=embedder.identity,
            provenance=embedder.provenance,
        )
        return embedder, space

    def of_space(self, space: Space) -> GuardedEmbedder:
        """The embedder that made the vectors of `space`. Raises `SpaceError` if it has changed since."""
        with self._lock:
            embedder = next((one for one in self._open.values() if _made(one, space)), None)
            return embedder or self._loaded_for(space)

    def chosen_space(self, choice: EmbedderChoice, catalog: Catalog) -> Space | None:
        """The newest space that fits an explicit choice; None without one. Raises `SpaceError`."""
        if not choice.explicit:
            return None
        spaces = catalog.spaces()
        fitting = [space for space in spaces if self._fits(choice, space)]
        if spaces and not fitting:
            fitting = self._of_same_making(choice, spaces)  # the weights may have another name by now
        if spaces and not fitting:
            raise SpaceError(
                "nothing is indexed with this model and these options yet; run `index` with them"
            )
        return max(fitting, key=lambda space: space.space_id, default=None)

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

    def _key(self, plugin: str, options: Mapping[str, object]) -> str:
        return json.dumps([plugin, resolve_options(self.host.get(plugin).info, options)], sort_keys=True)

    def _loaded_for(self, space: Space) -> GuardedEmbedder:
        """Loaded anew, even if it is open: its file may have changed since, and the space come from that."""
        embedder = self.load(space.plugin, space.options)
        if not _made(embedder, space):
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

    def _fits(self, choice: EmbedderChoice, space: Space) -> bool:
        named = choice.plugin or (DEFAULT_PLUGIN if choice.model else None)
        if named not in (None, space.plugin) or choice.decode not in (None, space.decode):
            return False
        try:
            wanted = resolve_options(self.host.get(space.plugin).info, choice.all_options())
        except PluginError:
            return False
        return all(space.options.get(key) == wanted[key] for key in choice.all_options())

    def _of_same_making(self, choice: EmbedderChoice, spaces: Sequence[Space]) -> list[Space]:
        plugin = choice.plugin or DEFAULT_PLUGIN
        alike = [s for s in spaces if s.plugin == plugin and choice.decode in (None, s.decode)]
        if not alike:
            return []
        embedder = self.open(plugin, choice.all_options())
        return [space for space in alike if _made(embedder, space)]


def _wanted(choice: EmbedderChoice, current: Space | None) -> tuple[str, dict[str, object], str]:
    """Plugin, options and decode mode to index with.

    A plugin or model that was named begins from that plugin's defaults; anything else from the current
    space, so that `-o` and `--decode` alone change only what they say.
    """
    if current is None or choice.plugin or choice.model:
        return choice.plugin or DEFAULT_PLUGIN, choice.all_options(), choice.decode or DEFAULT_DECODE
    return current.plugin, {**current.options, **choice.all_options()}, choice.decode or current.decode


def _fingerprint(embedder: GuardedEmbedder, decode: str) -> str:
    return embedder.fingerprint(f"{decode}-{DECODE_REVISION}")


def _made(embedder: GuardedEmbedder, space: Space) -> bool:
    return _fingerprint(embedder, space.decode) == space.fingerprint
