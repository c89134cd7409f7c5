"""The errors of a reconstruction as a picture: each patch in the color of its error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitmae_search.records import Reconstruction

HEAT_COLORS = np.array(
    [
        *((12, 12, 36), (66, 20, 92), (135, 34, 98), (203, 65, 72)),
        *((244, 128, 42), (251, 205, 88), (252, 250, 200)),
    ],
    dtype=np.float64,
)
"""From no error to the largest, from dark to bright, so that the map can be read in grey as well."""
_VISIBLE_GREY = 128


def error_map(made: Reconstruction) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, the size of the other panels: each patch in the color of its error.

    The scale runs from 0 to the largest error among the removed patches; visible ones, which the model
    did not have to guess, are grey.
    """
    largest = largest_error(made)
    level = np.clip(made.error / largest, 0, 1) if largest > 0 else np.zeros_like(made.error)
    colors = heat(level)
    colors[~made.mask] = _VISIBLE_GREY
    height, width = made.original.shape[:2]
    rows, columns = made.error.shape
    return colors.repeat(height // rows, axis=0).repeat(width // columns, axis=1)


def largest_error(made: Reconstruction) -> float:
    """The largest error among the removed patches, 0 where none was removed."""
    return float(made.error[made.mask].max()) if made.mask.any() else 0.0


def heat(level: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colors (..., 3) uint8 of levels in [0, 1]."""
    at = np.asarray(level, dtype=np.float64) * (len(HEAT_COLORS) - 1)
    stops = np.arange(len(HEAT_COLORS))
    channels = [np.interp(at, stops, HEAT_COLORS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
