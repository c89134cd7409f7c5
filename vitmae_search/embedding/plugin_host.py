"""Finding plugins: the bundled ones, the person's folders, and installed packages, all through one guard.

Nothing here opens a model. A plugin that does not load is listed with its error, and the host goes on.

Drop-in plugins (a `.py` file, or a folder with `__init__.py`) as modules of one private package.

A drop-in lies on no import path, so what it defines could not be pickled into a worker process. Here it
becomes `vitmae_search_plugins.<name>_<hash of its path>`, found by an import hook that knows its file;
whoever pickles something of a drop-in sends `registered()` along and calls `restore` on the other side.
Python's own import does the rest: relative imports, locks, and one load a process.

Whether a module's code is as it was, told by the stamps of its files.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from vitmae_search.bundled import bundled
from vitmae_search.embedding.plugin import (
    API_VERSION,
    CAPABILITIES,
    ClassifierOpener,
    EmbedderPlugin,
    PluginInfo,
)
from vitmae_search.errors import PluginBroken, PluginNotFound, display_path
from vitmae_search.records import PluginListing

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


PACKAGE = "vitmae_search_plugins"


class _DropInFinder(MetaPathFinder):
    """Finds the registered drop-ins. Their submodules are found by their `__path__`, as usual."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == PACKAGE:
            return ModuleSpec(PACKAGE, None, is_package=True)
        file = self.files.get(fullname)
        if file is None:
            return None
        folder = os.path.dirname(file) if os.path.basename(file) == "__init__.py" else None
        return spec_from_file_location(
            fullname, file, submodule_search_locations=None if folder is None else [folder]
        )


_FINDER = _DropInFinder()
sys.meta_path.append(_FINDER)


def register(path: str | os.PathLike[str]) -> str:
    """The module name of the drop-in at `path`, which can be imported from now on. Loads nothing."""
    entry = Path(os.path.abspath(path))
    is_folder = entry.is_dir()
    file = entry / "__init__.py" if is_folder else entry
    stem = re.sub(r"\W", "_", entry.name if is_folder else entry.stem)
    name = f"{PACKAGE}.{stem}_{hashlib.sha256(os.fsencode(file)).hexdigest()[:8]}"
    _FINDER.files[name] = os.fspath(file)
    return name


def registered() -> dict[str, str]:
    """Every drop-in of this process: module name to file. Plain values, for `restore` elsewhere."""
    return dict(_FINDER.files)


def restore(files: Mapping[str, str]) -> None:
    """Make another process's drop-ins importable here; each is loaded when something needs it."""
    _FINDER.files.update(files)


Stamp = tuple[int, int, int, int]


def stamp(path: str) -> Stamp | None:
    """What changes when the file or folder does: size, times and inode. None where there is none.

    The time of the last change of any kind (ctime) can be set by nobody, so a file that was exchanged for one
    of the same size and date is seen. Raises OSError where it cannot be told.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@functools.cache
def code_digest(module: str) -> str | None:
    """SHA-256 in hex over the stamps of an imported module's files; of a package, all below its folder.

    They are read once: ask when the module has just been imported, because that code is what runs. None where
    it cannot be told.
    """
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return None
    try:
        stamps = {path: stamp(path) for path in _files(file)}
    except OSError:
        return None
    return hashlib.sha256(json.dumps(stamps, sort_keys=True).encode()).hexdigest()


def _files(file: str) -> Iterator[str]:
    if os.path.basename(file) != "__init__.py":
        yield file
        return
    for folder, inside, names in os.walk(os.path.dirname(file)):
        inside[:] = [name for name in inside if name != "__pycache__"]
        yield from (os.path.join(folder, name) for name in names)


ENTRY_POINTS = "vitmae_search.embedders"

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Something that may be a plugin. `name` is its file's or entry point's, until it says its own.

    `module` is what `load` imports; of a package the outermost.
    """

    name: str
    origin: str
    load: Callable[[], object]
    module: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    candidate: _Candidate
    plugin: EmbedderPlugin | None
    listing: PluginListing
    code: str | None = None


class PluginHost:
    """The plugins of this process. They are loaded at the first question, each once; thread-safe.

    `folders` are the person's own, after the bundled one; a folder that does not exist is empty. Inside a
    folder, and among entry points, the order is by name. Of two plugins with one name the first is used
    and the other is listed with an error, so nothing can take a bundled plugin's place unseen.
    """

    def __init__(self, folders: Sequence[str | os.PathLike[str]] = (), *, packages: bool = True) -> None:
        self._folders = [("bundled", bundled("plugins")), *(("folder", Path(folder)) for folder in folders)]
        self._packages = packages
        self._found: list[_Found] | None = None
        self._lock = threading.Lock()

    def listings(self) -> list[PluginListing]:
        """Every plugin that was found, in the order of discovery, with the error of each broken one."""
        return [found.listing for found in self._all()]

    def get(self, name: str) -> EmbedderPlugin:
        """The plugin called `name`. Raises `PluginNotFound`, or `PluginBroken` where it did not load."""
        broken = None
        for found in self._all():
            if found.listing.name == name:
                if found.plugin is not None:
                    return found.plugin
                broken = broken or found.listing
        if broken is not None:
            raise PluginBroken(name, f"does not load ({broken.origin}): {broken.error}")
        names = ", ".join(found.listing.name for found in self._all() if found.plugin is not None)
        raise PluginNotFound(name, f"there is no such plugin; there are: {names or 'none'}")

    def code(self, name: str) -> str | None:
        """A digest of the plugin's code (see `code_digest`); None where it cannot be told."""
        named = (found for found in self._all() if found.listing.name == name and found.plugin is not None)
        return next((found.code for found in named), None)

    def _all(self) -> list[_Found]:
        with self._lock:
            if self._found is None:
                importlib.invalidate_caches()
                self._found = _load_all(self._candidates())
            return self._found

    def _candidates(self) -> Iterator[_Candidate]:
        for kind, folder in self._folders:
            yield from _folder_candidates(kind, folder)
        if self._packages:
            yield from _package_candidates()


def load_drop_in(path: str | os.PathLike[str]) -> EmbedderPlugin:
    """The plugin in one file or folder, without a host.

    Raises what its import raises, or TypeError or ValueError where it is not a plugin.
    """
    return checked_plugin(_import_drop_in(Path(path)))


def checked_plugin(found: object) -> EmbedderPlugin:
    """`found`, or its attribute `plugin`, once its `info` and `open` are what the contract asks for.

    Raises TypeError or ValueError that says what is wrong.
    """
    plugin: Any = getattr(found, "plugin", found)
    if not callable(getattr(plugin, "open", None)) or not hasattr(plugin, "info"):
        raise TypeError("it has no attribute `plugin` with `.info` and `.open()`")
    _check_info(plugin.info)
    if "classify" in plugin.info.capabilities and not isinstance(plugin, ClassifierOpener):
        raise TypeError("it says that it can classify, but has no open_classifier()")
    return cast(EmbedderPlugin, plugin)


def _check_info(info: object) -> None:
    if not isinstance(info, PluginInfo):
        raise TypeError(f"plugin.info must be a PluginInfo, not {type(info).__name__}")
    if info.api_version != API_VERSION:
        raise ValueError(f"it is written for plugin API {info.api_version!r}; this host has {API_VERSION}")
    if not isinstance(info.name, str) or not _NAME.fullmatch(info.name):
        raise ValueError(f"the name {info.name!r} must be letters, digits, '_', '-' and '.'")
    if not isinstance(info.title, str) or not info.title:
        raise ValueError(f"the title {info.title!r} must be text")
    if type(info.vector_revision) is not int or info.vector_revision < 1:
        raise ValueError(f"vector_revision={info.vector_revision!r} must be a whole number from 1")
    if not isinstance(info.capabilities, frozenset | set) or "embed" not in info.capabilities:
        raise ValueError("capabilities must be a set that has 'embed'")
    if unknown := sorted(map(str, info.capabilities - CAPABILITIES)):
        raise ValueError(f"unknown capability {unknown[0]!r}; there are: {', '.join(sorted(CAPABILITIES))}")
    _check_defaults(info)


def _check_defaults(info: PluginInfo) -> None:
    for key, default in dict(info.options).items():
        if not isinstance(key, str) or not key or "=" in key:
            raise ValueError(f"the option name {key!r} must be text without '='")
        if type(default) not in (str, int, float, bool):
            raise ValueError(f"the default of option {key!r} must be a str, int, float or bool")


def _folder_candidates(kind: str, folder: Path) -> Iterator[_Candidate]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        reason = f"the folder cannot be read: {error.strerror}"
        yield _Candidate(display_path(folder.name), display_path(folder), _raiser(OSError(reason)))
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.name[0] in "._" or not (path.suffix == ".py" or _holds_python(path)):
            continue
        origin, module = f"{kind}: {display_path(path)}", register(path)
        yield _Candidate(display_path(path.stem), origin, lambda path=path: _import_drop_in(path), module)  # type: ignore[misc]


def _holds_python(path: Path) -> bool:
    """A folder with Python files in it is meant as a plugin, even where its `__init__.py` is missing."""
    return path.is_dir() and next(path.glob("*.py"), None) is not None


def _import_drop_in(path: Path) -> object:
    if path.is_dir() and not (path / "__init__.py").is_file():
        raise FileNotFoundError("the folder has no __init__.py")
    return importlib.import_module(register(path))


def _package_candidates() -> Iterator[_Candidate]:
    from importlib.metadata import entry_points  # not until plugins are looked for: it takes a while

    try:
        found: Sequence[EntryPoint] = sorted(entry_points(group=ENTRY_POINTS), key=_entry_order)
    except Exception as error:  # one package's damaged metadata must not hide every plugin
        yield _Candidate("installed packages", "package", _raiser(error))
        return
    for entry in found:
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
        outermost = entry.module.partition(".")[0]
        yield _Candidate(entry.name, f"package: {package} ({entry.value})", entry.load, outermost)


def _entry_order(entry: EntryPoint) -> tuple[str, str]:
    return entry.name, entry.value


def _raiser(error: Exception) -> Callable[[], object]:
    def load() -> object:
        raise error

    return load


def _load_all(candidates: Iterator[_Candidate]) -> list[_Found]:
    taken: dict[str, str] = {}
    result = []
    for candidate in candidates:
        found = _load(candidate)
        name = found.listing.name
        if found.plugin is not None and name in taken:
            found = _broken(candidate, f"the name {name!r} is taken by {taken[name]}", name)
        elif found.plugin is not None:
            taken[name] = candidate.origin
        result.append(found)
    return result


def _load(candidate: _Candidate) -> _Found:
    try:
        plugin = checked_plugin(candidate.load())
        info = plugin.info
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a script dropped into the folder ends so
        _log.debug("plugin %s does not load", candidate.origin, exc_info=True)
        return _broken(candidate, describe(error))
    listing = PluginListing(
        name=info.name,
        title=info.title,
        origin=candidate.origin,
        api_version=info.api_version,
        vector_revision=info.vector_revision,
        capabilities=tuple(sorted(info.capabilities)),
        options=dict(info.options),
    )
    return _Found(candidate, plugin, listing, code_digest(candidate.module))


def _broken(candidate: _Candidate, error: str, name: str | None = None) -> _Found:
    listing = PluginListing(name or candidate.name, "", candidate.origin, None, None, (), {}, error)
    return _Found(candidate, None, listing)


def describe(error: BaseException) -> str:
    """`error` in one line, with the file and line that raised it: for whoever wrote the plugin."""
    text = " ".join(str(error).split())[:300]
    summary = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")]
    if isinstance(error, SyntaxError) or not frames or frames[-1].filename == __file__:
        return summary
    return f"{summary} ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})"
