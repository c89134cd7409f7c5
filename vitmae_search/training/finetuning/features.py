"""A file of a frozen encoder's features, which are computed once; an interrupted run continues it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from vitmae_search.atomic import write_atomically
from vitmae_search.errors import TrainingError

_CHUNK = 64
"""Rows encoded at a time. Chunks start at multiples of this, so that a resumed run gives identical bits."""
_CHUNKS_PER_RECORD = 32
"""Chunks between two records of how many rows are on disk."""

Encode = Callable[[int, int], NDArray[np.float32]]
"""Takes start and stop, and gives the features of these rows, (stop - start, width)."""


def cached_features(
    folder: Path,
    encode: Encode,
    *,
    shape: tuple[int, int],
    signature: str,
    on_progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> NDArray[np.float32] | None:
    """Compute features that are not on disk yet.

    Args:
        folder: Where the file is; features with another signature are replaced.
        encode: Computes the features of consecutive rows.
        shape: (rows, width).
        signature: Of everything that the features depend on.
        on_progress: Called with the rows done and all rows.
        stop: Asked before each chunk; true ends early.

    Returns:
        (rows, width), memory-mapped, or None where `stop` ended it early.

    Raises:
        TrainingError: A feature is not finite.
    """
    folder.mkdir(exist_ok=True)
    rows, width = shape
    path = folder / "features.f32"
    done = _recorded_rows(folder, path, signature, width)
    with path.open("r+b" if done else "wb") as stream:
        stream.truncate(done * width * 4)
        stream.seek(0, os.SEEK_END)
        chunks = 0
        while done < rows and not stop():
            block = np.ascontiguousarray(encode(done, min(done + _CHUNK, rows)), np.float32)
            if not np.isfinite(block).all():
                raise TrainingError("the encoder's features are not finite: its weights are damaged")
            stream.write(block.tobytes())
            done, chunks = done + len(block), chunks + 1
            if chunks % _CHUNKS_PER_RECORD == 0:
                _record_rows(folder, stream, signature, done)
            if on_progress is not None:
                on_progress(done, rows)
        _record_rows(folder, stream, signature, done)
    return np.memmap(path, np.float32, "r", shape=shape) if done == rows else None


def _record_rows(folder: Path, stream: IO[bytes], signature: str, done: int) -> None:
    stream.flush()
    os.fsync(stream.fileno())
    with write_atomically(folder / "features.json") as record:
        record.write(json.dumps({"signature": signature, "rows": done}).encode())


def _recorded_rows(folder: Path, path: Path, signature: str, width: int) -> int:
    """How many rows of the file are valid: whole chunks, unless they are all rows."""
    try:
        record = json.loads((folder / "features.json").read_bytes())
        rows = int(record["rows"]) if record["signature"] == signature else 0
        return rows if path.stat().st_size >= rows * width * 4 else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0
