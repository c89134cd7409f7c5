"""Atomic writes: a file has all of its new content or none, and what killed writers left is swept."""

from __future__ import annotations

import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
_NEW_SECONDS = 60.0
"""A temporary file may be this young before its writer has locked it."""
_OLD_SECONDS = 3600.0
"""Where files cannot be locked, a temporary file is abandoned once it has not changed for so long."""

_swept: set[Path] = set()


@contextmanager
def write_atomically(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Write a file by way of a temporary one beside it, which is renamed when the block ends.

    Where the block fails, `path` keeps its old content, or stays absent. A process that is killed leaves the
    temporary file; the next process that writes into the folder deletes it (`sweep`).

    Args:
        path: The file.
        durable: Whether the content must outlast a power cut from the end of the block on, which takes some
            milliseconds.

    Yields:
        A binary stream, to write and to read.

    Raises:
        OSError: The file cannot be written.
    """
    _sweep_once(path.parent)
    temporary = temporary_beside(path)
    try:
        with open(temporary, "x+b") as stream:
            lock(stream)
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_folder(path.parent)


def temporary_beside(path: Path) -> Path:
    """A new name for a temporary file that `sweep` knows, in the same folder."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def sweep(folder: Path) -> None:
    """Delete the temporary files in `folder` whose writers were killed: ours by name and owner, and unlocked.

    A lock ends with its process. What cannot be read or deleted is left.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name):
                with suppress(OSError):
                    if _is_abandoned(entry):
                        os.unlink(entry.path)


def _sweep_once(folder: Path) -> None:
    """Sweep a folder when this process first writes into it."""
    if folder not in _swept:
        _swept.add(folder)
        sweep(folder)


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    status = entry.stat(follow_symlinks=False)
    age = time.time() - status.st_mtime
    own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    if not stat.S_ISREG(status.st_mode) or not own or age < _NEW_SECONDS:
        return False
    with open(entry.path, "rb") as stream:
        locked = lock(stream)
    return age > _OLD_SECONDS if locked is None else locked


def lock(stream: IO[Any]) -> bool | None:
    """Lock a file until it is closed. False if it is locked already; None where files cannot be locked."""
    try:
        if fcntl is None:
            return None
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable, on file systems that can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
