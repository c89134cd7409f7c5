"""The seams of a reconstruction: steps between neighbouring patches that were both guessed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitmae_search.records import Reconstruction


def soften_seams(made: Reconstruction) -> NDArray[np.uint8]:
    """`made.pasted` without the steps between neighbouring guesses, for looking at.

    A decoder guesses each patch by itself. Here each step from one guess to the next becomes a slope, from
    the middle of one patch to the middle of the other. Visible pixels stay as they are, and so do the seams
    between them and guesses.

    Returns:
        (H, W, 3) uint8.
    """
    picture = made.pasted.astype(np.float64)
    _soften_columns(picture, made.mask)
    _soften_columns(picture.transpose(1, 0, 2), made.mask.T)
    return picture.round().clip(0, 255).astype(np.uint8)


def _soften_columns(picture: NDArray[np.float64], mask: NDArray[np.bool_]) -> None:
    """Soften the seams between patches side by side, in place.

    Args:
        picture: (H, W, 3).
        mask: (gh, gw), True where a patch was guessed.
    """
    height, width = picture.shape[0] // mask.shape[0], picture.shape[1] // mask.shape[1]
    reach = width // 2
    slope = (1 - (np.arange(reach) + 0.5) / reach)[:, None] / 2  # share of the step, from the seam outwards
    for column in range(1, mask.shape[1]):
        rows = np.flatnonzero((mask[:, column - 1] & mask[:, column]).repeat(height))
        seam = column * width
        step = picture[rows, seam, None] - picture[rows, seam - 1, None]  # (rows, 1, 3)
        picture[rows, seam : seam + reach] -= step * slope
        picture[rows, seam - reach : seam] += step * slope[::-1]
