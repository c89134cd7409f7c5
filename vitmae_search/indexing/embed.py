"""Embedding a batch so that one bad row fails alone, and a broken plugin does not fail them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding import GuardedEmbedder
from vitmae_search.errors import DeviceError, VitmaeSearchError

Outcome = NDArray[np.float32] | VitmaeSearchError


def embed_rows(embedder: GuardedEmbedder, rows: Sequence[NDArray[Any]]) -> list[Outcome]:
    """For each prepared image its (D,) vector, or the error that it alone gives.

    A batch that fails is tried again row by row; one that does not fit into memory, in halves. Raises
    `DeviceError` where not even one row fits.
    """
    if not rows:
        return []
    try:
        return list(embedder.embed(np.stack(rows)))
    except MemoryError as error:
        if len(rows) == 1:
            raise DeviceError(
                "the model's device has not enough memory for a single photo; choose another with --device"
            ) from error
        half = len(rows) // 2
        return embed_rows(embedder, rows[:half]) + embed_rows(embedder, rows[half:])
    except VitmaeSearchError as error:
        if len(rows) == 1:
            return [error]
        return [outcome for row in rows for outcome in embed_rows(embedder, [row])]


def still_works(embedder: GuardedEmbedder) -> bool:
    """Whether the embedder can embed an ordinary image; if not, no photo is to blame."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((256, 192), Image.Resampling.BICUBIC)
    try:
        embedder.embed(embedder.prepare(image)[None])
    except (VitmaeSearchError, MemoryError):
        return False
    return True
