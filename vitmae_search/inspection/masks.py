"""Patterns of hidden patches: (gh, gw) bool, True where a patch is hidden."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import InspectionError
from vitmae_search.mask_patterns import PATTERNS

Mask = NDArray[np.bool_]

_MOST_PATCHES = 1 << 16
_TEXT = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})-([0-9a-f]+)")


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


def growing_masks(mask: Mask, ratios: Sequence[float], seed: int = 0) -> list[Mask]:
    """Masks that hide ever more: first the patches of a mask, one after the other, then all others.

    Args:
        mask: (gh, gw), what is hidden first.
        ratios: Mask ratios, 0 ≤ r < 1; at least one patch stays visible.
        seed: Of the order, within the mask and outside of it.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(mask.size)
    order = np.concatenate([order[mask.ravel()[order]], order[~mask.ravel()[order]]])
    made = []
    for ratio in ratios:
        hidden = np.zeros(mask.size, dtype=bool)
        hidden[order[: min(mask.size - 1, mask.size - int(mask.size * (1 - ratio)))]] = True
        made.append(hidden.reshape(mask.shape))
    return made


def hide_more(mask: Mask, share: float, seed: int = 0) -> Mask:
    """Hide a share of the visible patches besides; one stays visible at least.

    Args:
        mask: (gh, gw).
        share: Of the patches that are visible, 0 to 1.
        seed: Which ones.
    """
    visible = np.flatnonzero(~mask)
    chosen = np.random.default_rng(seed).permutation(visible)[
        : min(len(visible) - 1, round(len(visible) * share))
    ]
    hidden = mask.copy()
    hidden.flat[chosen] = True
    return hidden


def mask_text(mask: Mask) -> str:
    """A mask as a short text, for addresses, command lines and files: `read_mask` reads it.

    "8x8-" (rows and columns) and a bit for each patch, row by row, as hexadecimal digits; 1 is hidden.

    Args:
        mask: (gh, gw).
    """
    rows, columns = mask.shape
    digits = np.packbits(mask.ravel()).tobytes().hex()
    return f"{rows}x{columns}-{digits[: -(-mask.size // 4)]}"


def read_mask(text: str) -> Mask:
    """The mask that a text says, as `mask_text` makes it.

    Raises:
        InspectionError: It is no such text.
    """
    found = _TEXT.fullmatch(text)
    rows, columns = (int(found[1]), int(found[2])) if found else (0, 0)
    size = rows * columns
    if found is None or size > _MOST_PATCHES or len(found[3]) != -(-size // 4):
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise InspectionError(
            f"{shown!r} is no mask; one is 4x4-c000: rows, columns, and a bit for each patch."
        )
    digits = found[3] + "0" * (len(found[3]) % 2)
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))[:size]
    return bits.astype(bool).reshape(rows, columns)


def fit_mask(mask: Mask, grid: tuple[int, int]) -> Mask:
    """The mask in another model's patches: one is hidden where its middle was.

    Args:
        mask: (gh, gw).
        grid: Rows and columns of the other model's patches.
    """
    rows, columns = (
        ((np.arange(count) + 0.5) * before / count).astype(int)
        for count, before in zip(grid, mask.shape, strict=True)
    )
    return np.ascontiguousarray(mask[np.ix_(rows, columns)])
