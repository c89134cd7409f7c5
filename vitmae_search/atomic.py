"""Atomic writes: a file has all of its new content or none."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def write_atomically(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Write a file by way of a temporary one beside it, which is renamed when the block ends.

    Where the block fails, `path` keeps its old content, or stays absent. A process that is killed leaves the
    temporary file, `.NAME.*.tmp`.

    Args:
        path: The file.
        durable: Whether the content must outlast a power cut from the end of the block on, which takes some
            milliseconds.

    Yields:
        A binary stream, to write and to read.

    Raises:
        OSError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "x+b") as stream:
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


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable, on file systems that can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
