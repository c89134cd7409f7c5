"""Patterns of hidden patches: (gh, gw) bool, True where a patch is hidden."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import InspectionError

Mask = NDArray[np.bool_]
PATTERNS = ("random", "block", "grid")


def pattern_mask(pattern: str, grid: tuple[int, int], ratio: float, seed: int = 0) -> Mask:
    """Hide a share of the patches in a pattern.

    Args:
        pattern: "random": scattered. "block": one rectangle, somewhere in the picture. "grid": patches stay
            in rows and columns that are evenly spread; the seed moves them.
        grid: Rows and columns of patches.
        ratio: The share of patches to hide, 0 ≤ r < 1. A block or grid comes as close to it as it can; one
            patch at least stays visible and, above 0, one at least is hidden.
        seed: Which ones.

    Raises:
        InspectionError: There is no such pattern, or the ratio is outside [0, 1).
    """
    if not 0 <= ratio < 1:
        raise InspectionError(f"The share of hidden patches is from 0 up to 1, not {ratio}.")
    random = np.random.default_rng(seed)
    rows, columns = grid
    hidden = np.zeros(grid, dtype=bool)
    if pattern == "random":
        order = random.permutation(rows * columns)
        hidden.ravel()[order[int(rows * columns * (1 - ratio)) :]] = True
    elif pattern == "block":
        height = min(rows, round(rows * math.sqrt(ratio)))
        width = min(columns, round(rows * columns * ratio / height)) if height else 0
        top, left = random.integers(rows - height + 1), random.integers(columns - width + 1)
        hidden[top : top + height, left : left + width] = True
    elif pattern == "grid":
        kept = rows * columns * (1 - ratio)
        tall = min(rows, max(1, round(math.sqrt(kept * rows / columns))))
        wide = min(columns, max(1, round(kept / tall)))
        down, across = (np.arange(tall) + random.random()) * rows / tall, np.arange(wide) + random.random()
        hidden[:] = True
        hidden[np.ix_(down.astype(int), (across * columns / wide).astype(int))] = False
    else:
        raise InspectionError(f"There is no pattern {pattern!r}; there are {', '.join(PATTERNS)}.")
    if hidden.all():
        hidden.flat[random.integers(hidden.size)] = False
    elif ratio > 0 and not hidden.any():
        hidden.flat[random.integers(hidden.size)] = True
    return hidden


def all_but_box(grid: tuple[int, int], box: tuple[int, int, int, int]) -> Mask:
    """Hide all patches outside of a box.

    Args:
        grid: Rows and columns of patches.
        box: First row, first column, and those after the last ones.
    """
    hidden = np.ones(grid, dtype=bool)
    top, left, bottom, right = box
    hidden[top:bottom, left:right] = False
    return hidden
