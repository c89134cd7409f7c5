"""Whether a module's code is as it was, told by the stamps of its files."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterator

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
