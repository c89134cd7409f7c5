"""Which embedder is selected, the embedders that a library has open, and a cache of what they are.

`EmbedderSelection` is what a person chose to embed with and to search in. `Embedders` opens embedders when
they are needed, each once. Many commands only need to know which space an embedder belongs to, so its
description is cached in the user's cache folder, and the model is not loaded for that. A cached description
is valid while the plugin's code, our own code, and every file that the embedder was read from are unchanged;
where anything is in doubt the model is loaded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

from vitmae_search.atomic import write_atomically
from vitmae_search.embedding import (
    EmbedderDescription,
    GuardedClassifier,
    GuardedEmbedder,
    PluginHost,
    PluginInfo,
    Projection,
    canonical_json,
    code_digest,
    file_stamp,
    open_classifier,
    open_embedder,
    resolve_options,
)
from vitmae_search.errors import PluginNotFound, SpaceError, VitmaeSearchError
from vitmae_search.photos import DECODE_REVISION
from vitmae_search.records import ModelListing, Space
from vitmae_search.settings import settings

DEFAULT_PLUGIN: Final = "vitmae"
DEFAULT_DECODE: Final = "scaled"
NO_PROJECTION: Final = "none"

CACHE_FOLDER: Final = "embedders"
"""The folder of cached descriptions, in the user's cache folder."""
MIN_FILE_AGE_SECONDS = 2.0
"""File times are coarse. Only a file that was older than this when read is trusted to show a later change."""

_PLUGIN_MODEL = re.compile(r"([A-Za-z][\w.-]+):(?!//)(.+)")
"""A plugin and its model. An address, and a drive's letter, are no plugins."""

_SOURCES = ("bundled", "trained", "cached", "hub")
"""Where models come from, in the order in which they are listed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EmbedderSelection:
    """What a person chose to embed with and to search in; all None is whatever the library uses.

    Attributes:
        plugin: The plugin's name.
        model: What `--model` names.
        options: The plugin's other options.
        decode: How photos are decoded, "scaled" or "exact".
        projection: A projection, or "none" for the features themselves.
    """

    plugin: str | None = None
    model: str | None = None
    options: Mapping[str, str] | None = None
    decode: str | None = None
    projection: Projection | Literal["none"] | None = None

    @property
    def explicit(self) -> bool:
        """Whether it says how features are made. A projection alone applies to existing features."""
        return bool(self.plugin or self.model or self.options or self.decode)

    @property
    def digest(self) -> str | None:
        """The digest of the projection; None where none is wanted, or any."""
        return self.projection.digest if isinstance(self.projection, Projection) else None

    def all_options(self) -> dict[str, object]:
        """The plugin's options, with `model` among them; a path is made absolute."""
        options: dict[str, object] = dict(self.options or {})
        model = options.get("model") if self.model is None else self.model
        if isinstance(model, str):
            options["model"] = absolute_model(model)
        return options


def split_model(plugin: str | None, model: str | None) -> tuple[str | None, str | None]:
    """The plugin and the model that `--model PLUGIN:MODEL` names; both as they are for any other name.

    Args:
        plugin: What `--embedder` names; then the model is that plugin's, whatever it is called.
        model: What `--model` names.
    """
    named = None if plugin or model is None or os.path.exists(model) else _PLUGIN_MODEL.fullmatch(model)
    return (plugin, model) if named is None else (named[1], named[2])


def absolute_model(model: str) -> str:
    """A file or folder on this disk as an absolute path; any other name as it is."""
    path = os.path.expanduser(model)
    return os.path.abspath(path) if os.path.exists(path) else model


def read_projection_option(
    value: str | os.PathLike[str] | Projection | None,
) -> Projection | Literal["none"] | None:
    """What `--projection auto|none|FILE` means; None is "auto".

    Raises:
        ModelError: The file is no projection.
    """
    if value is None or value == "auto":
        return None
    if isinstance(value, Projection):
        return value
    return NO_PROJECTION if value == NO_PROJECTION else Projection.read(os.path.expanduser(value))


@dataclass(frozen=True, slots=True)
class LazyEmbedder:
    """What an embedder is, and a way to open it.

    Attributes:
        description: Its plugin, model, identity and options.
        open: Returns the embedder, which is loaded if it is not open. Raises what `Embedders.open` raises,
            and `SpaceError` where the model is not the one described any more.
    """

    description: EmbedderDescription
    open: Callable[[], GuardedEmbedder]

    @classmethod
    def of(cls, embedder: GuardedEmbedder) -> LazyEmbedder:
        """An embedder that is open already."""
        return cls(embedder.description, lambda: embedder)


@dataclass(frozen=True, slots=True)
class SpaceOpener:
    """Opens the embedder that makes the vectors of a space of features; pickles.

    Attributes:
        plugin_folders: Folders with a person's own plugins.
        device: As for `Library.open`.
        precision: As for `Library.open`.
    """

    plugin_folders: tuple[str, ...]
    device: str
    precision: str

    def __call__(self, space: Space) -> GuardedEmbedder:
        """Load it.

        Raises:
            VitmaeSearchError: What `Embedders.open` raises; `SpaceError` where it makes other vectors here.
        """
        host = PluginHost(self.plugin_folders)
        # A cluster gives its process one GPU, whatever its number is on the machine.
        device = "cuda" if self.device.startswith("cuda") else self.device
        embedder = open_embedder(host.get(space.plugin), space.options, device, self.precision)
        if not made_features(embedder, space):
            raise SpaceError(
                f"the model {embedder.model!r} makes other vectors on {platform.node()} than where the run "
                "began; its files, or its plugin, differ"
            )
        return embedder


class Embedders:
    """Opens embedders when they are needed, each once, and keeps them open until `close`. Thread-safe."""

    def __init__(self, plugin_folders: Sequence[Path], device: str, precision: str) -> None:
        self.host = PluginHost(plugin_folders)
        self.device, self._precision = device, precision
        self._plugin_folders = tuple(map(os.fspath, plugin_folders))
        self._lock = threading.Lock()
        self._open: dict[str, GuardedEmbedder] = {}
        self._outdated: list[GuardedEmbedder] = []
        # Of the code that runs now: an update may replace the files while this process goes on.
        self._code = code_digest("vitmae_search")

    def open(self, plugin: str, options: Mapping[str, object]) -> GuardedEmbedder:
        """The embedder of a plugin, loaded if it is not open yet.

        Args:
            plugin: The plugin's name.
            options: Some or all of its options; the others have their defaults.

        Raises:
            PluginError: The plugin is not there or does not work, or has no such option.
            ModelError: The model cannot be loaded.
            DeviceError: The device is not there or lacks memory.
        """
        key = self._key(plugin, options)
        with self._lock:
            if key not in self._open:
                self._open[key] = self.load(plugin, options)
            return self._open[key]

    def load(self, plugin: str, options: Mapping[str, object]) -> GuardedEmbedder:
        """As `open`, but always a new one, for the caller to close.

        Args:
            plugin: The plugin's name.
            options: Some or all of its options; the others have their defaults.
        """
        opened_at = time.time()
        embedder = open_embedder(self.host.get(plugin), options, self.device, self._precision)
        _store_description(self._cache_key(plugin, options), embedder, opened_at)
        return embedder

    def lazy(self, plugin: str, options: Mapping[str, object]) -> LazyEmbedder:
        """As `open`, but an embedder whose description is cached is not loaded.

        Args:
            plugin: The plugin's name.
            options: Some or all of its options; the others have their defaults.
        """
        with self._lock:
            embedder = self._open.get(self._key(plugin, options))
        description = None if embedder else _load_cached_description(self._cache_key(plugin, options))
        if description is None:
            return LazyEmbedder.of(embedder or self.open(plugin, options))
        return LazyEmbedder(description, lambda: self._open_unchanged(description, plugin, options))

    def elsewhere(self) -> SpaceOpener:
        """Opens embedders of spaces as this does, in any process."""
        return SpaceOpener(self._plugin_folders, self.device, self._precision)

    def on_cpu(self) -> Embedders:
        """The same for a machine that only describes models which others run; for the caller to close."""
        return Embedders([Path(folder) for folder in self._plugin_folders], "cpu", self._precision)

    def for_space(self, space: Space) -> GuardedEmbedder:
        """The embedder that made the vectors of a space of features.

        Raises:
            SpaceError: The model has changed since.
        """
        with self._lock:
            embedder = next((one for one in self._open.values() if made_features(one, space)), None)
            return embedder or self._load_for_space(space)

    def lazy_for_space(self, space: Space) -> LazyEmbedder:
        """As `for_space`, but an embedder whose description is cached is not loaded."""
        self._require_plugin(space)
        with self._lock:
            is_open = any(made_features(one, space) for one in self._open.values())
        description = (
            None if is_open else _load_cached_description(self._cache_key(space.plugin, space.options))
        )
        if description is None or not made_features(description, space):
            return LazyEmbedder.of(self.for_space(space))
        return LazyEmbedder(description, lambda: self.for_space(space))

    def with_capability(
        self, capability: str, selection: EmbedderSelection, current: Space | None
    ) -> GuardedEmbedder:
        """The embedder to reconstruct with, or to inspect.

        Args:
            capability: "reconstruct" or "inspect".
            selection: What was chosen; if that is explicit, it is used.
            current: The current space, whose model comes next, if its plugin has the capability. Otherwise it
                is the bundled model.
        """
        if selection.explicit:
            return self.open(selection.plugin or DEFAULT_PLUGIN, selection.all_options())
        able = {listed.name for listed in self.host.listings() if capability in listed.capabilities}
        if current is not None and current.plugin in able:
            return self.open(current.plugin, current.options)
        return self.open(DEFAULT_PLUGIN, {})

    def open_classifier(self, plugin: str, model: str) -> GuardedClassifier:
        """A classifier, for the caller to close. Raises what `open` raises.

        Args:
            plugin: The plugin's name.
            model: A folder, file or hub id.
        """
        return open_classifier(self.host.get(plugin), model, self.device, self._precision)

    def models(self) -> list[ModelListing]:
        """The models that plugins can name, those on this disk first.

        A plugin that fails at it is logged and left out.
        """
        listings: list[ModelListing] = []
        for listed in self.host.listings():
            if listed.error is not None:
                continue
            try:
                models = self.host.get(listed.name).models()
                listings += [replace(model, plugin=listed.name) for model in models]
            except Exception:  # a plugin may raise anything
                log.warning("plugin %r cannot list its models", listed.name, exc_info=True)
        return sorted(
            listings, key=lambda model: _SOURCES.index(model.source) if model.source in _SOURCES else 0
        )

    def resolve_options(self, plugin: str, options: Mapping[str, object]) -> Mapping[str, object]:
        """Every option of a plugin, defaults filled in.

        Args:
            plugin: The plugin's name.
            options: Those that are given.

        Raises:
            PluginError: There is no such plugin or option, or a value does not fit.
        """
        return resolve_options(self.host.get(plugin).info, options)

    def offload(self, *, after: float = 0.0) -> int:
        """Move open models out of their device's memory, if unused for `after` seconds. Returns how many."""
        with self._lock:
            embedders = (*self._open.values(), *self._outdated)
        return offload_idle(embedders, after)

    def close(self) -> None:
        """Close every open embedder. Raises `PluginBroken` at the end, where one cannot be closed."""
        with self._lock, ExitStack() as closing:
            for embedder in (*self._open.values(), *self._outdated):
                closing.callback(embedder.close)
            self._open.clear()
            self._outdated.clear()

    def _key(self, plugin: str, options: Mapping[str, object]) -> str:
        return json.dumps([plugin, self.resolve_options(plugin, options)], sort_keys=True)

    def _cache_key(self, plugin: str, options: Mapping[str, object]) -> _DescriptionKey:
        code, resolved = self.host.code_digest(plugin), self.resolve_options(plugin, options)
        both = None if code is None or self._code is None else f"{self._code} {code}"
        return _DescriptionKey(self.host.get(plugin).info, both, resolved, self.device, self._precision)

    def _open_unchanged(
        self, description: EmbedderDescription, plugin: str, options: Mapping[str, object]
    ) -> GuardedEmbedder:
        embedder = self.open(plugin, options)
        if embedder.identity != description.identity:
            raise SpaceError(f"the model {embedder.model!r} has just changed; run the same command again")
        return embedder

    def _require_plugin(self, space: Space) -> None:
        """Raise `PluginNotFound` with what to do, if the plugin of `space` is not there any more."""
        try:
            self.host.get(space.plugin)
        except PluginNotFound as error:
            raise PluginNotFound(
                space.plugin,
                f"{error.message}. It made space {space.space_id}: put it back, choose another one with "
                "--embedder, or another space with `vitmae-search spaces use`.",
            ) from None

    def _load_for_space(self, space: Space) -> GuardedEmbedder:
        """Load the embedder of `space` anew, and check that it still makes the same vectors.

        Even if one is open with the same options: its file may have changed since, and the space may have
        been made from the new one.
        """
        self._require_plugin(space)
        embedder = self.load(space.plugin, space.options)
        if not made_features(embedder, space):
            embedder.close()
            raise SpaceError(
                f"the model {space.model!r} has changed since space {space.space_id} was made, so old and "
                "new vectors cannot be compared; index again to make a new space, then `spaces use` it"
            )
        key = self._key(space.plugin, space.options)
        if key in self._open:  # another thread may be using it, so it is closed at the end
            self._outdated.append(self._open[key])
        self._open[key] = embedder
        return embedder


def offload_idle(embedders: Iterable[GuardedEmbedder], after: float) -> int:
    """Move embedders out of their device's memory; failure is a warning in the log.

    Args:
        embedders: The embedders.
        after: Only those that were not used for so many seconds.

    Returns:
        How many were offloaded.
    """
    offloaded = 0
    for embedder in embedders:
        try:
            offloaded += embedder.offload(idle_seconds=after)
        except VitmaeSearchError as error:
            log.warning("a model keeps its device's memory: %s", error)
    return offloaded


def space_fingerprint(embedder: GuardedEmbedder | EmbedderDescription, decode: str) -> str:
    """The fingerprint of the space of features that an embedder makes.

    Args:
        embedder: The embedder, or what it is.
        decode: How the photos are decoded, "scaled" or "exact".
    """
    return embedder.fingerprint(f"{decode}-{DECODE_REVISION}")


def made_features(embedder: GuardedEmbedder | EmbedderDescription, space: Space) -> bool:
    """Whether an embedder makes the vectors of a space.

    Args:
        embedder: The embedder, or what it is.
        space: A space of features, not a derived one.
    """
    return space_fingerprint(embedder, space.decode) == space.fingerprint


@dataclass(frozen=True, slots=True)
class _DescriptionKey:
    """What a cached description is found by: all that decides an embedder, apart from its files.

    `code` is a digest of our code and the plugin's, None where it cannot be had; then nothing is cached.
    """

    info: PluginInfo
    code: str | None
    options: Mapping[str, Any]
    device: str
    precision: str

    @property
    def path(self) -> Path:
        values = canonical_json([self.info.name, dict(self.options), self.device, self.precision])
        return settings().cache / CACHE_FOLDER / f"{hashlib.sha256(values.encode()).hexdigest()}.json"


def _load_cached_description(key: _DescriptionKey) -> EmbedderDescription | None:
    """The cached description, None where there is none or it may not be valid any more."""
    if key.code is None:
        return None
    try:
        cached = json.loads(key.path.read_bytes())
        if cached["code"] != key.code or file_stamps(list(cached["files"])) != cached["files"]:
            return None
        return EmbedderDescription(info=key.info, **cached["embedder"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is passed over: %s", key.path, error)
        return None


def _store_description(key: _DescriptionKey, embedder: GuardedEmbedder, opened_at: float) -> None:
    """Cache what an embedder is, which was opened at `opened_at` (`time.time()`) or later.

    It is stored under the options given and under the resolved ones, which the space keeps to open it with.
    Failure is a warning in the log.
    """
    if embedder.source_files is None or key.code is None:
        return
    try:
        files = file_stamps(embedder.source_files)
        if not unchanged_since(files, opened_at):
            return
        _write_description(key, files, embedder.description)
        if embedder.options != key.options:
            resolved = replace(embedder.description, unresolved_options={})
            _write_description(replace(key, options=embedder.options), files, resolved)
    except OSError as error:
        log.warning("what %s is cannot be kept: %s", embedder.model, error)


def _write_description(
    key: _DescriptionKey, files: Mapping[str, Any], description: EmbedderDescription
) -> None:
    values = {one.name: getattr(description, one.name) for one in fields(description) if one.name != "info"}
    key.path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(key.path, durable=False) as stream:
        stream.write(json.dumps({"code": key.code, "files": files, "embedder": values}).encode())


def file_stamps(paths: Sequence[str]) -> dict[str, list[int] | None]:
    """The files' stamps by path, as JSON has them; None for a file that is not there."""
    stamps = {path: file_stamp(path) for path in paths}
    return {path: None if one is None else list(one) for path, one in stamps.items()}


def unchanged_since(files: Mapping[str, list[int] | None], opened_at: float) -> bool:
    """Whether every file was last changed safely before an embedder was opened.

    Args:
        files: `file_stamps` of what it read, taken after it was opened.
        opened_at: `time.time()` before it was opened.
    """
    limit = (min(opened_at, time.time()) - MIN_FILE_AGE_SECONDS) * 1e9
    return all(one is None or max(one[1], one[2]) < limit for one in files.values())
