"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def write_atomically(path: Path) -> Iterator[IO[bytes]]:
    """A binary stream whose bytes appear under `path` when the block ends, and never if it fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def replace_files(folder: Path) -> Iterator[Path]:
    """A new folder whose files replace those of the same name in `folder` when the block ends."""
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".saving-"))
    try:
        yield temporary
        for made in sorted(temporary.iterdir()):
            with made.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(made, folder / made.name)
        _sync_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
