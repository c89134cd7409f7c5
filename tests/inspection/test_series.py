"""Many reconstructions of one picture, with the bundled model and with one whose answers are known."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitmae_search.errors import InspectionError, StorageError
from vitmae_search.inspection.figures import save_figure, sweep_figure
from vitmae_search.inspection.masks import PATTERNS, all_but_box, pattern_mask
from vitmae_search.inspection.series import (
    animation,
    in_pattern,
    iterate,
    patch_importance,
    ratio_sweep,
    save_animation,
    seed_statistics,
)
from vitmae_search.library import Library
from vitmae_search.records import Reconstruction

GRID = (4, 4)


def known(*, mask_ratio: float = 0.5, seed: int = 0, mask: Any = None) -> Reconstruction:
    """Guesses the seed as a grey level, with an error of 1 for each patch that is hidden in its row."""
    mask = pattern_mask("random", GRID, mask_ratio, seed) if mask is None else mask
    guess = np.full((8, 8, 3), 10 * seed, np.uint8)
    photo = np.full((8, 8, 3), 200, np.uint8)
    pixels = mask.repeat(2, axis=0).repeat(2, axis=1)[..., None]
    return Reconstruction(
        original=photo,
        masked=np.where(pixels, np.uint8(128), photo),
        reconstruction=guess,
        pasted=np.where(pixels, guess, photo),
        mask=mask,
        error=np.broadcast_to(mask.sum(axis=1, keepdims=True), GRID).astype(np.float32),
        loss=None,
        mask_ratio=mask_ratio,
        statistics="none",
    )


@pytest.mark.parametrize("grid", [(8, 8), (14, 14), (3, 7), (1, 5)])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_hide_the_share(pattern: str, grid: tuple[int, int]) -> None:
    for ratio in (0.0, 0.3, 0.5, 0.75, 0.9):
        hidden = pattern_mask(pattern, grid, ratio, seed=3)
        assert hidden.shape == grid
        least = 1 / min(grid) + 1 / hidden.size if pattern != "random" else 1 / hidden.size
        assert abs(hidden.mean() - ratio) <= least
    assert not np.array_equal(
        pattern_mask("block", (14, 14), 0.3, 1), pattern_mask("block", (14, 14), 0.3, 2)
    )


@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_patch_stays_visible_and_one_is_hidden(pattern: str) -> None:
    for grid in ((8, 8), (14, 14), (1, 3)):
        assert not pattern_mask(pattern, grid, 0.99).all()
        assert pattern == "random" or pattern_mask(pattern, grid, 0.01).any()


def test_reconstructions_in_a_pattern(tmp_path: Path) -> None:
    patterned = in_pattern(known, "block", GRID)
    assert np.array_equal(patterned(mask_ratio=0.5, seed=1).mask, pattern_mask("block", GRID, 0.5, 1))
    given = all_but_box(GRID, (0, 0, 2, 2))
    assert np.array_equal(patterned(mask=given).mask, given)
    assert in_pattern(known, "random", GRID) is known


@pytest.mark.parametrize("name", ["x.txt", "no/such/folder/x.png"])
def test_a_figure_that_cannot_be_written_is_a_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises((InspectionError, StorageError), match=r"figures are|cannot be written"):
        save_figure(sweep_figure([known(mask_ratio=0.5)]), tmp_path / name)


def test_a_grid_is_spread_evenly() -> None:
    hidden = pattern_mask("grid", (8, 8), 0.75)
    quarters = [hidden[top : top + 4, left : left + 4].sum() for top in (0, 4) for left in (0, 4)]
    assert max(quarters) - min(quarters) <= 1


def test_a_block_is_one_rectangle() -> None:
    rows, columns = np.nonzero(pattern_mask("block", (8, 8), 0.5))
    assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


def test_all_but_a_box() -> None:
    hidden = all_but_box(GRID, (1, 1, 3, 4))
    assert np.argwhere(~hidden).tolist() == [[1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3]]


def test_strange_patterns_are_refused() -> None:
    with pytest.raises(InspectionError, match="random, block, grid"):
        pattern_mask("stripes", GRID, 0.5)
    with pytest.raises(InspectionError, match="from 0 up to 1"):
        pattern_mask("grid", GRID, 1)


def test_mean_and_deviation_are_over_the_seeds_that_hid_a_patch() -> None:
    found = seed_statistics(known, 0.5, [1, 2, 3])
    masks = [pattern_mask("random", GRID, 0.5, seed) for seed in (1, 2, 3)]
    for row, column in np.ndindex(GRID):
        guesses = [10 * seed for seed, mask in zip((1, 2, 3), masks, strict=True) if mask[row, column]]
        pixel = (2 * row, 2 * column)
        assert found.hidden[row, column] == len(guesses)
        assert found.mean[pixel][0] == (round(float(np.mean(guesses))) if guesses else 200)
        assert found.deviation[pixel] == pytest.approx(np.std(guesses) if guesses else 0, abs=1e-4)
    with pytest.raises(InspectionError, match="two seeds"):
        seed_statistics(known, 0.5, [1])


def test_the_patch_that_matters_is_the_one_whose_loss_hurts() -> None:
    mask = np.zeros(GRID, bool)
    mask[0, 0] = mask[2, 1] = True
    found = patch_importance(known, mask)
    assert np.isnan(found[mask]).all()
    assert (found[0, 1:] == 0.5).all(), "one more in the row of one of two hidden patches"
    assert (found[1] == 0).all()
    for mask in (np.zeros(GRID, bool), all_but_box(GRID, (0, 0, 1, 1))):
        with pytest.raises(InspectionError, match="some must be hidden"):
            patch_importance(known, mask)


def test_a_sweep_of_a_photo_hides_ever_more_and_becomes_an_animation(
    real_photos: dict[str, Path], tmp_path: Path
) -> None:
    photo = Image.open(real_photos["coffee"])
    with Library.open(tmp_path / "library") as library:
        made = ratio_sweep(lambda **options: library.reconstruct(photo, **options), (0.25, 0.5, 0.75))
        again = iterate(library.reconstruct, photo.convert("RGB"), 2, ratio=0.5)
    for before, after in pairwise(made):
        assert (after.mask | before.mask == after.mask).all()
    losses = [each.loss for each in made]
    assert losses[0] is not None
    assert losses[2] is not None
    assert losses[0] < losses[2]
    assert np.array_equal(
        again[1].original[~again[0].mask.repeat(8, 0).repeat(8, 1)],
        again[0].original[~again[0].mask.repeat(8, 0).repeat(8, 1)],
    )
    stream = BytesIO()
    save_animation(animation(made), stream)
    with Image.open(stream) as read:
        assert (read.n_frames, read.size, read.info["loop"]) == (4, (512, 256), 0)
