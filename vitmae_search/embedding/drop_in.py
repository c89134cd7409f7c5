"""Drop-in plugins (a `.py` file, or a folder with `__init__.py`) as modules of one private package.

A drop-in lies on no import path, so what it defines could not be pickled into a worker process. Here it
becomes `vitmae_search_plugins.<name>_<hash of its path>`, found by an import hook that knows its file;
whoever pickles something of a drop-in sends `registered()` along and calls `restore` on the other side.
Python's own import does the rest: relative imports, locks, and one load a process.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

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
