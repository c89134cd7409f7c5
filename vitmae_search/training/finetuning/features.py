"""Features of a frozen encoder in a file, computed once; a run that was stopped goes on with them."""

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

_CHUNK = 64  # rows encoded at a time, always the same ones together: a stop must not change their bits
_RECORDED = 32  # chunks between two records of how far the file is good

Encode = Callable[[int, int], NDArray[np.float32]]
"""Rows start … stop as (stop - start, width)."""


def cached_features(
    folder: Path,
    encode: Encode,
    *,
    shape: tuple[int, int],
    signature: str,
    on_progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> NDArray[np.float32] | None:
    """The features (rows, width), memory-mapped, or None where `stop` said so before all were there.

    What `folder` holds under another signature is thrown away. Raises `TrainingError` for a value that is
    not finite.
    """
    folder.mkdir(exist_ok=True)
    rows, width = shape
    path = folder / "features.f32"
    done = _recorded(folder, path, signature, width)
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
            if chunks % _RECORDED == 0:
                _record(folder, stream, signature, done)
            if on_progress is not None:
                on_progress(done, rows)
        _record(folder, stream, signature, done)
    return np.memmap(path, np.float32, "r", shape=shape) if done == rows else None


def _record(folder: Path, stream: IO[bytes], signature: str, done: int) -> None:
    stream.flush()
    os.fsync(stream.fileno())
    with write_atomically(folder / "features.json") as record:
        record.write(json.dumps({"signature": signature, "rows": done}).encode())


def _recorded(folder: Path, path: Path, signature: str, width: int) -> int:
    """How many rows of the file are good, in whole chunks unless they are all."""
    try:
        described = json.loads((folder / "features.json").read_bytes())
        good = int(described["rows"]) if described["signature"] == signature else 0
        return good if path.stat().st_size >= good * width * 4 else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0
