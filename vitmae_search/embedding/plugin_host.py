"""The plugin host: finds and loads bundled plugins, those in the person's folders, and installed packages.

Nothing here opens a model. A plugin that does not load is listed with its error, and the others still load.

Drop-in plugins lie on no import path, so what they define could not be pickled into a worker process. They
become modules of one private package, `vitmae_search_plugins.<name>_<hash of the path>`, found by an import
hook that knows their files. Whoever pickles something of a drop-in sends `registered_drop_ins()` along and
calls `restore_drop_ins` on the other side. Python's import system does the rest: relative imports, locks,
and one load per process.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import itertools
import json
import logging
import os
import re
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from vitmae_search.bundled import bundled
from vitmae_search.embedding.plugin import API_VERSION, CAPABILITIES, EmbedderPlugin, PluginInfo, overrides
from vitmae_search.embedding.plugin_errors import error_summary
from vitmae_search.errors import PluginBroken, PluginNotFound, did_you_mean, display_path
from vitmae_search.records import PluginListing

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "vitmae_search.embedders"
"""The entry point group in which a package names its plugins."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A module that may contain a plugin.

    `name` is that of its file or entry point; the plugin's own is known once it is loaded. `module` is what
    `load` imports, for a package the top level one.
    """

    name: str
    origin: str
    load: Callable[[], object]
    module: str = ""


@dataclass(frozen=True, slots=True)
class _LoadResult:
    """A candidate after loading. `plugin` is None where it did not load, and `listing` says why."""

    plugin: EmbedderPlugin | None
    listing: PluginListing
    code_digest: str | None = None


class PluginHost:
    """The plugins of this process. They are loaded in their order until one is found, each once; thread-safe.

    The order is: bundled plugins, the person's folders, installed packages; within each, by name. Of two
    plugins with one name the first is used and the other is listed with an error, so no plugin can replace a
    bundled one unnoticed.
    """

    def __init__(self, folders: Sequence[str | os.PathLike[str]] = (), *, packages: bool = True) -> None:
        """Load nothing yet.

        Args:
            folders: The person's own, after the bundled one; a folder that does not exist counts as empty.
            packages: Whether to look for installed packages.
        """
        self._folders = [("bundled", bundled("plugins")), *(("folder", Path(folder)) for folder in folders)]
        self._packages = packages
        self._waiting: Iterator[_Candidate] | None = None
        self._loaded: list[_LoadResult] = []
        self._lock = threading.Lock()

    def listings(self) -> list[PluginListing]:
        """Every plugin that was found, in the order of discovery, with the error of each broken one."""
        return [result.listing for result in self._results()]

    def get(self, name: str) -> EmbedderPlugin:
        """The plugin called `name`. Raises `PluginNotFound`, or `PluginBroken` where it did not load."""
        broken = None
        for result in self._results():
            if result.listing.name == name:
                if result.plugin is not None:
                    return result.plugin
                broken = broken or result.listing
        if broken is not None:
            raise PluginBroken(name, f"does not load ({broken.origin}): {broken.error}")
        names = [result.listing.name for result in self._results() if result.plugin is not None]
        listed = f"there is no such plugin; there are: {', '.join(names) or 'none'}"
        raise PluginNotFound(name, f"{listed}.{did_you_mean(name, names)}")

    def code_digest(self, name: str) -> str | None:
        """A digest of the plugin's code (see the function `code_digest`); None where it cannot be told."""
        named = (one for one in self._results() if one.listing.name == name and one.plugin is not None)
        return next((result.code_digest for result in named), None)

    def _results(self) -> Iterator[_LoadResult]:
        """Every candidate; one is loaded only when those before it were looked at."""
        for number in itertools.count():
            with self._lock:
                if number == len(self._loaded) and not self._load_next():
                    return
                result = self._loaded[number]
            yield result

    def _load_next(self) -> bool:
        """Load one more; False where there are no more."""
        if self._waiting is None:
            importlib.invalidate_caches()
            self._waiting = self._candidates()
        candidate = next(self._waiting, None)
        if candidate is None:
            return False
        result = _load(candidate)
        same = (one.listing for one in self._loaded if one.listing.name == result.listing.name and one.plugin)
        if result.plugin is not None and (first := next(same, None)) is not None:
            error = f"the name {first.name!r} is taken by {first.origin}"
            result = _broken(candidate, error, first.name, result.listing.title)
        self._loaded.append(result)
        return True

    def _candidates(self) -> Iterator[_Candidate]:
        for kind, folder in self._folders:
            yield from _folder_candidates(kind, folder)
        if self._packages:
            yield from _package_candidates()


def load_drop_in(path: str | os.PathLike[str]) -> EmbedderPlugin:
    """The plugin in one file or folder, without a host.

    Raises what its import raises, or TypeError or ValueError where it is not a plugin.
    """
    return validate_plugin(_import_drop_in(Path(path)))


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
        if entry.name[0] in "._" or not (path.suffix == ".py" or _contains_python(path)):
            continue
        origin, module = f"{kind}: {display_path(path)}", register_drop_in(path)
        import_file = _import_drop_in if kind == "bundled" else _import_private_drop_in
        load = functools.partial(import_file, path)
        yield _Candidate(display_path(path.stem), origin, load, module)


def _python_files(path: Path) -> list[Path]:
    """A drop-in itself, and all that may be imported from its folder."""
    files = list(path.rglob("*.py"))
    return [path, *files, *(file.parent for file in files)]


def _writable_by_others(*paths: Path) -> Path | None:
    """The first path whose content another user of this machine may change, so that it must not run."""
    for path in paths:
        status = path.stat()
        mine = not hasattr(os, "geteuid") or status.st_uid in (0, os.geteuid())
        if os.name == "posix" and (status.st_mode & stat.S_IWOTH or not mine):
            return path
    return None


def _contains_python(path: Path) -> bool:
    """A folder with Python files in it is meant as a plugin, even where its `__init__.py` is missing."""
    return path.is_dir() and next(path.glob("*.py"), None) is not None


def _import_drop_in(path: Path) -> object:
    if path.is_dir() and not (path / "__init__.py").is_file():
        raise FileNotFoundError("the folder has no __init__.py")
    return importlib.import_module(register_drop_in(path))


def _import_private_drop_in(path: Path) -> object:
    """Import a drop-in of the person's own folder. Raises `PermissionError` where others may change it."""
    writable = _writable_by_others(path.parent, *_python_files(path))
    if writable is not None:
        raise PermissionError(
            f"it is not loaded, because others may write to {display_path(writable)}: make it yours alone "
            "(chmod go-w) first"
        )
    return _import_drop_in(path)


def _package_candidates() -> Iterator[_Candidate]:
    from importlib.metadata import entry_points  # slow to import, and not needed by every command

    try:
        found: Sequence[EntryPoint] = sorted(entry_points(group=ENTRY_POINTS), key=_entry_order)
    except Exception as error:  # one package's damaged metadata must not hide every plugin
        yield _Candidate("installed packages", "package", _raiser(error))
        return
    for entry in found:
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
        top_level = entry.module.partition(".")[0]
        yield _Candidate(entry.name, f"package: {package} ({entry.value})", entry.load, top_level)


def _entry_order(entry: EntryPoint) -> tuple[str, str]:
    return entry.name, entry.value


def _raiser(error: Exception) -> Callable[[], object]:
    def load() -> object:
        raise error

    return load


def _load(candidate: _Candidate) -> _LoadResult:
    try:
        plugin = validate_plugin(candidate.load())
        info = plugin.info
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a script dropped into the folder ends so
        _log.debug("plugin %s does not load", candidate.origin, exc_info=True)
        return _broken(candidate, error_summary(error))
    listing = PluginListing(
        name=info.name,
        title=info.title,
        origin=candidate.origin,
        api_version=info.api_version,
        vector_revision=info.vector_revision,
        capabilities=tuple(sorted(info.capabilities)),
        options=dict(info.options),
    )
    return _LoadResult(plugin, listing, code_digest(candidate.module))


def _broken(candidate: _Candidate, error: str, name: str | None = None, title: str = "") -> _LoadResult:
    listing = PluginListing(name or candidate.name, title, candidate.origin, None, None, (), {}, error)
    return _LoadResult(None, listing)


def validate_plugin(found: object) -> EmbedderPlugin:
    """`found`, or its attribute `plugin`, once it is an `EmbedderPlugin` whose `info` keeps the contract.

    Raises TypeError or ValueError that says what is wrong.
    """
    plugin = getattr(found, "plugin", found)
    if not isinstance(plugin, EmbedderPlugin):
        raise TypeError(
            "it has no attribute `plugin` that is an instance of a subclass of "
            "vitmae_search.embedding.EmbedderPlugin"
        )
    _validate_info(plugin.info)
    if "classify" in plugin.info.capabilities and not overrides(plugin, EmbedderPlugin, "open_classifier"):
        raise TypeError("it says that it can classify, but has no open_classifier()")
    return plugin


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def _validate_info(info: object) -> None:
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
    _validate_defaults(info)


def _validate_defaults(info: PluginInfo) -> None:
    for key, default in dict(info.options).items():
        if not isinstance(key, str) or not key or "=" in key:
            raise ValueError(f"the option name {key!r} must be text without '='")
        if type(default) not in (str, int, float, bool):
            raise ValueError(f"the default of option {key!r} must be a str, int, float or bool")


_PACKAGE = "vitmae_search_plugins"


class _DropInFinder(MetaPathFinder):
    """Finds the registered drop-ins. Their submodules are found by their `__path__`, as usual."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == _PACKAGE:
            return ModuleSpec(_PACKAGE, None, is_package=True)
        file = self.files.get(fullname)
        if file is None:
            return None
        folder = os.path.dirname(file) if os.path.basename(file) == "__init__.py" else None
        return spec_from_file_location(
            fullname, file, submodule_search_locations=None if folder is None else [folder]
        )


_FINDER = _DropInFinder()
sys.meta_path.append(_FINDER)


def register_drop_in(path: str | os.PathLike[str]) -> str:
    """The module name of the drop-in at `path`, which can be imported from now on. Loads nothing."""
    entry = Path(os.path.abspath(path))
    is_folder = entry.is_dir()
    file = entry / "__init__.py" if is_folder else entry
    stem = re.sub(r"\W", "_", entry.name if is_folder else entry.stem)
    name = f"{_PACKAGE}.{stem}_{hashlib.sha256(os.fsencode(file)).hexdigest()[:8]}"
    _FINDER.files[name] = os.fspath(file)
    return name


def registered_drop_ins() -> dict[str, str]:
    """Every drop-in of this process: module name to file. For `restore_drop_ins` in another process."""
    return dict(_FINDER.files)


def restore_drop_ins(files: Mapping[str, str]) -> None:
    """Make another process's drop-ins importable here; each is loaded when something needs it."""
    _FINDER.files.update(files)


FileStamp = tuple[int, int, int, int]
"""Size in bytes, mtime and ctime in nanoseconds, inode."""


def file_stamp(path: str) -> FileStamp | None:
    """What changes when the file or folder does: size, times and inode. None where there is none.

    Nobody can set the time of the last change of any kind (ctime), so a file that was replaced by one of the
    same size and date is noticed. Raises OSError where the stamp cannot be read.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@functools.cache
def code_digest(module: str) -> str | None:
    """SHA-256 in hex over the stamps of an imported module's files; of a package, all below its folder.

    The stamps are read once, so call it right after the import: that is the code that runs. None where they
    cannot be read.
    """
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return None
    try:
        stamps = {path: file_stamp(path) for path in _module_files(file)}
    except OSError:
        return None
    return hashlib.sha256(json.dumps(stamps, sort_keys=True).encode()).hexdigest()


def _module_files(file: str) -> Iterator[str]:
    if os.path.basename(file) != "__init__.py":
        yield file
        return
    for folder, subfolders, names in os.walk(os.path.dirname(file)):
        subfolders[:] = [name for name in subfolders if name != "__pycache__"]
        yield from (os.path.join(folder, name) for name in names)
