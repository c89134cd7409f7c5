"""The embedders that are open.

What a person asked to embed with and to search in.

What embedders are, remembered between runs, so that a model need not be loaded to know its space.

A description holds while the plugin's code, ours, and every file that the embedder was read from are as they
were. It lies in the user's cache folder. Where anything is in doubt there is none, and the model is opened.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
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
from vitmae_search.errors import SpaceError, VitmaeSearchError
from vitmae_search.photos import DECODE_REVISION
from vitmae_search.records import ModelListing, Space
from vitmae_search.settings import settings

NO_PROJECTION: Final = "none"


@dataclass(frozen=True, slots=True)
class EmbedderChoice:
    """None and no options: whatever the library uses."""

    plugin: str | None = None
    model: str | None = None
    options: Mapping[str, str] | None = None
    decode: str | None = None
    projection: Projection | Literal["none"] | None = None

    @property
    def explicit(self) -> bool:
        """Whether it says how features are made. A projection alone is for the features that are there."""
        return bool(self.plugin or self.model or self.options or self.decode)

    @property
    def digest(self) -> str | None:
        """The digest of the projection; None where it is to have none, or whichever."""
        return self.projection.digest if isinstance(self.projection, Projection) else None

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


def chosen_projection(
    named: str | os.PathLike[str] | Projection | None,
) -> Projection | Literal["none"] | None:
    """What `--projection auto|none|FILE` means; None is auto. Raises `ModelError` for another file."""
    if named is None or named == "auto":
        return None
    if isinstance(named, Projection):
        return named
    return NO_PROJECTION if named == NO_PROJECTION else Projection.read(os.path.expanduser(named))


log = logging.getLogger(__name__)

FOLDER_NAME = "embedders"
SETTLED_SECONDS = 2.0
"""How long before it is read a file must have changed last: clocks of file systems tick slowly."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What decides an embedder, beside its files. `code` is a digest of what would open it, where known."""

    info: PluginInfo
    code: str | None
    options: Mapping[str, Any]
    device: str
    precision: str

    @property
    def path(self) -> Path:
        """Where its description lies."""
        asked = canonical_json([self.info.name, dict(self.options), self.device, self.precision])
        return settings().cache / FOLDER_NAME / f"{hashlib.sha256(asked.encode()).hexdigest()}.json"


def recall(asked: Asked) -> EmbedderDescription | None:
    """What the embedder is, without opening it; None where that is not known for sure."""
    if asked.code is None:
        return None
    try:
        found = json.loads(asked.path.read_bytes())
        if found["code"] != asked.code or _stamps(list(found["files"])) != found["files"]:
            return None
        return EmbedderDescription(info=asked.info, **found["embedder"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is passed over: %s", asked.path, error)
        return None


def remember(asked: Asked, embedder: GuardedEmbedder, opened_at: float) -> None:
    """Keep what the embedder is, which was opened at that time (`time.time()`), or later.

    It is also kept under the options that it chose, with which it opens as it is. Failure is a warning in
    the log.
    """
    if embedder.source_files is None or asked.code is None:
        return
    try:
        files = _stamps(embedder.source_files)
        if not _settled(files, opened_at):
            return
        _write(asked, files, embedder.description)
        if embedder.options != asked.options:
            _write(
                replace(asked, options=embedder.options),
                files,
                replace(embedder.description, unresolved_options={}),
            )
    except OSError as error:
        log.warning("what %s is cannot be kept: %s", embedder.model, error)


def _write(asked: Asked, files: Mapping[str, Any], description: EmbedderDescription) -> None:
    values = {one.name: getattr(description, one.name) for one in fields(description) if one.name != "info"}
    asked.path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(asked.path, durable=False) as stream:
        stream.write(json.dumps({"code": asked.code, "files": files, "embedder": values}).encode())


def _stamps(paths: Sequence[str]) -> dict[str, list[int] | None]:
    """As JSON gives them back."""
    stamps = {path: file_stamp(path) for path in paths}
    return {path: None if one is None else list(one) for path, one in stamps.items()}


def _settled(files: Mapping[str, list[int] | None], opened_at: float) -> bool:
    """Whether no file has changed since the embedder was opened, or just before it."""
    before = (min(opened_at, time.time()) - SETTLED_SECONDS) * 1e9
    return all(one is None or max(one[1], one[2]) < before for one in files.values())


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
        """The models that the plugins name. One that fails is logged and left out."""
        listings: list[ModelListing] = []
        for listed in self.host.listings():
            if listed.error is not None:
                continue
            try:
                models = self.host.get(listed.name).models()
                listings += [replace(model, plugin=listed.name) for model in models]
            except Exception:  # a plugin may raise anything
                log.warning("plugin %r cannot list its models", listed.name, exc_info=True)
        return listings

    def offload(self, *, idle_seconds: float = 0.0) -> int:
        """See `GuardedEmbedder.offload`, for every open model. Returns how many did."""
        with self._lock:
            every = (*self._open.values(), *self._outdated)
        offloaded = 0
        for embedder in every:
            try:
                offloaded += embedder.offload(idle_seconds=idle_seconds)
            except VitmaeSearchError as error:
                log.warning("a model keeps its device's memory: %s", error)
        return offloaded

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
        code, resolved = self.host.code_digest(plugin), self.resolved(plugin, options)
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
