"""Running a model on a batch so that one bad row fails alone, and a broken plugin does not fail them all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding import GuardedClassifier, GuardedEmbedder, Prepare, enough_memory
from vitmae_search.errors import DeviceError, VitmaeSearchError

LEAST_BATCH = 32
_LARGEST_BATCH = 128
_BATCH_BYTES = 1 << 21
"""Of prepared pixels: 32 photos of 148 × 148, or 128 of 74 × 74."""
_MOST_BYTES = 1 << 27
"""Of prepared pixels, where the plugin names the size. A run holds up to four batches of them: being read,
collected, embedded, and given back."""

Outcome = NDArray[np.float32] | VitmaeSearchError
Run = Callable[[NDArray[Any]], NDArray[np.float32]]
"""A batch of prepared images, (N, ...), to a row for each, (N, D)."""


def embed_rows(embedder: GuardedEmbedder, rows: Sequence[NDArray[Any]]) -> list[Outcome]:
    """For each prepared image its (D,) vector, or the error that it alone gives; see `rows_alone`."""
    return rows_alone(embedder.embed, rows)


def batch_size_for(opened: GuardedEmbedder | GuardedClassifier) -> int:
    """How many photos a batch has where nobody said: what the plugin says, as far as memory goes.

    Else 32, and more of small ones, whose calls cost too much. Larger ones would lose more work when a run
    is killed.
    """
    each = math.prod(opened.shape) * opened.dtype.itemsize
    if opened.batch_size is not None:
        return max(1, min(opened.batch_size, _MOST_BYTES // each))
    return max(LEAST_BATCH, min(_LARGEST_BATCH, _BATCH_BYTES // each))


def still_works(embedder: GuardedEmbedder) -> bool:
    """Whether the embedder can embed an ordinary image; if not, no photo is to blame."""
    return works(embedder.prepare, embedder.embed)


def rows_alone(run: Run, rows: Sequence[NDArray[Any]] | NDArray[Any]) -> list[Outcome]:
    """For each prepared image its row of what `run` gives, or the error that it alone gives.

    A batch that fails is tried again row by row; one that does not fit into memory, in halves. Raises
    `DeviceError` where not even one row fits, or where the device is lost: then no row is to blame.
    """
    if len(rows) == 0:
        return []
    try:
        return list(run(rows if isinstance(rows, np.ndarray) else np.stack(rows)))
    except MemoryError:
        if len(rows) == 1:
            with enough_memory("look at a single photo"):
                raise
        size = -(-len(rows) // 2)
    except DeviceError:
        raise
    except VitmaeSearchError as error:
        if len(rows) == 1:
            return [error]
        size = 1
    # Only now: the error held what the plugin had in memory.
    return [outcome for n in range(0, len(rows), size) for outcome in rows_alone(run, rows[n : n + size])]


def works(prepare: Prepare, run: Run) -> bool:
    """Whether an ordinary image goes through. Raises `DeviceError`."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((256, 192), Image.Resampling.BICUBIC)
    try:
        run(prepare(image)[None])
    except DeviceError:
        raise
    except (VitmaeSearchError, MemoryError):
        return False
    return True
