"""Many reconstructions of one picture: over mask ratios, seeds, and each visible patch hidden in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.errors import InspectionError
from vitmae_search.inspection.gif import encode_gif
from vitmae_search.inspection.masks import Mask, fit_mask, growing_masks, hide_more, pattern_mask
from vitmae_search.records import Reconstruction

Reconstruct = Callable[..., Reconstruction]
"""Reconstructs the picture; takes `mask_ratio`, `seed` and `mask` as `Library.reconstruct` does."""

SEEDS = 16
"""How many `seed_statistics` is asked for where nobody says."""
STEPS = 8
"""How often a picture is reconstructed again where nobody says."""
MORE_HIDDEN = 0.5
"""The share of the visible patches that `seed_statistics` hides beside a mask where nobody says."""
RATIOS = tuple(percent / 100 for percent in range(5, 100, 5))
_MILLISECONDS = 350


@dataclass(frozen=True, slots=True, eq=False)
class SeedStatistics:
    """What the model guesses when other patches are hidden each time.

    Attributes:
        mean: (H, W, 3) uint8, the mean of the guesses of each pixel, over the seeds that hid it.
        deviation: (H, W) float32, their standard deviation over those seeds, the mean of the three channels,
            in levels of 0 to 255: large where the model is unsure.
        hidden: (gh, gw) int64, how many seeds hid each patch. Where none did, `mean` is the photo, and
            `deviation` 0.
    """

    mean: NDArray[np.uint8]
    deviation: NDArray[np.float32]
    hidden: NDArray[np.int64]


def in_pattern(reconstruct: Reconstruct, pattern: str, grid: tuple[int, int]) -> Reconstruct:
    """The same reconstructions with patches hidden in a pattern, where no mask is given.

    Args:
        reconstruct: Of the picture.
        pattern: As for `pattern_mask`.
        grid: Rows and columns of patches.
    """
    if pattern == "random":
        return reconstruct

    def call(*, mask_ratio: float = 0.75, seed: int = 0, mask: Mask | None = None) -> Reconstruction:
        chosen = pattern_mask(pattern, grid, mask_ratio, seed) if mask is None else mask
        return reconstruct(mask=chosen)

    return call


def images_in_pattern(
    reconstruct_image: Callable[..., Reconstruction], pattern: str, grid: tuple[int, int]
) -> Callable[..., Reconstruction]:
    """As `in_pattern`, for what takes the picture as well, as `iterate` needs it.

    Args:
        reconstruct_image: As `Library.reconstruct`.
        pattern: As for `pattern_mask`.
        grid: Rows and columns of patches.
    """

    def call(image: Image.Image, **options: Any) -> Reconstruction:
        return in_pattern(partial(reconstruct_image, image), pattern, grid)(**options)

    return call


def with_the_same_mask(reconstruct: Reconstruct, made: Reconstruction) -> Reconstruction:
    """What another model makes of the picture with the same patches hidden, to see two side by side.

    Where its patches have another size, one is hidden where its middle was.

    Args:
        reconstruct: Of the picture, by the other model.
        made: By the first one.
    """
    return reconstruct(mask=fit_mask(made.mask, reconstruct().mask.shape))


def ratio_sweep(
    reconstruct: Reconstruct, ratios: Sequence[float] = RATIOS, seed: int = 0, mask: Mask | None = None
) -> list[Reconstruction]:
    """Reconstructions with ever more patches hidden. A patch that is hidden once stays hidden.

    Args:
        reconstruct: Of the picture.
        ratios: Mask ratios, 0 ≤ r < 1.
        seed: Of the patches' order.
        mask: (gh, gw), patches that are hidden before all others; None for none.
    """
    if mask is not None:
        return [reconstruct(mask=grown) for grown in growing_masks(mask, ratios, seed)]
    return [reconstruct(mask_ratio=ratio, seed=seed) for ratio in ratios]


def seed_statistics(
    reconstruct: Reconstruct, ratio: float, seeds: Sequence[int], mask: Mask | None = None
) -> SeedStatistics:
    """How the guesses of a pixel differ with what is hidden beside it.

    Args:
        reconstruct: Of the picture.
        ratio: The mask ratio; with a mask, the share of the other patches that each seed hides besides.
        seeds: Two or more.
        mask: (gh, gw), patches that are hidden each time; None for none.

    Raises:
        InspectionError: There are fewer than two seeds.
    """
    if len(seeds) < 2:
        raise InspectionError("A deviation needs two seeds or more.")
    if mask is None:
        made = [reconstruct(mask_ratio=ratio, seed=seed) for seed in seeds]
    else:
        made = [reconstruct(mask=hide_more(mask, ratio, seed)) for seed in seeds]
    guesses = np.stack([each.reconstruction for each in made]).astype(np.float64)
    masks = np.stack([each.mask for each in made])
    height, width = made[0].original.shape[:2]
    rows, columns = made[0].mask.shape
    pixels = masks.repeat(height // rows, axis=1).repeat(width // columns, axis=2)[..., None]
    count = np.maximum(pixels.sum(axis=0), 1)
    mean = (guesses * pixels).sum(axis=0) / count
    variance = (((guesses - mean) ** 2) * pixels).sum(axis=0) / count
    seen = ~pixels.any(axis=0)
    shown = np.where(seen, made[0].original, mean.round())
    return SeedStatistics(
        shown.astype(np.uint8), np.sqrt(variance).mean(axis=2).astype(np.float32), masks.sum(axis=0)
    )


def patch_importance(reconstruct: Reconstruct, mask: Mask) -> NDArray[np.float32]:
    """How much worse the guess of the hidden patches becomes when one more patch is hidden.

    Args:
        reconstruct: Of the picture.
        mask: (gh, gw), what is hidden; at least one patch, and not all but one.

    Returns:
        (gh, gw) float32, the rise of the mean error over the patches of `mask`, in the units of the loss; NaN
        for these themselves. Less than 0 where the model guesses better without a patch.

    Raises:
        InspectionError: Nothing is hidden, or all but one patch is.
    """
    if not mask.any() or (~mask).sum() < 2:
        raise InspectionError("To say which patches matter, some must be hidden and two or more visible.")
    before = float(reconstruct(mask=mask).error[mask].mean())
    found = np.full(mask.shape, np.nan, np.float32)
    for row, column in np.argwhere(~mask):
        more = mask.copy()
        more[row, column] = True
        found[row, column] = reconstruct(mask=more).error[mask].mean() - before
    return found


def iterate(
    reconstruct_image: Callable[..., Reconstruction],
    image: Image.Image,
    times: int,
    *,
    ratio: float,
    seed: int = 0,
    mask: Mask | None = None,
) -> list[Reconstruction]:
    """Reconstruct a picture, then what came of it with other patches hidden, and so on.

    Args:
        reconstruct_image: As `Library.reconstruct`, which takes the picture as well.
        image: The picture.
        times: How often, 1 or more.
        ratio: The mask ratio.
        seed: Of the first; each further one has the next number.
        mask: (gh, gw), what is hidden first, in place of the first seed's patches.
    """
    made: list[Reconstruction] = []
    for number in range(times):
        first = {"mask": mask} if mask is not None and not number else {}
        made.append(reconstruct_image(image, mask_ratio=ratio, seed=seed + number, **first))
        image = Image.fromarray(made[-1].pasted)
    return made


def animation(made: Sequence[Reconstruction], *, side: int = 256) -> list[Image.Image]:
    """Frames of a sweep: what the model saw beside the photo as it completed it.

    Args:
        made: Of `ratio_sweep`.
        side: Pixels of each picture's shorter side, at least.

    Returns:
        RGB frames.
    """
    frames = []
    for each in made:
        both = np.concatenate([each.masked, each.pasted], axis=1)
        factor = max(1, -(-side // each.original.shape[0]))
        frames.append(Image.fromarray(both.repeat(factor, axis=0).repeat(factor, axis=1)))
    return frames


def animation_gif(made: Sequence[Reconstruction]) -> bytes:
    """The frames of `animation` as a GIF that goes forth and back.

    Args:
        made: Of `ratio_sweep`.
    """
    frames = animation(made)
    return encode_gif([*frames, *reversed(frames[1:-1])], _MILLISECONDS)
