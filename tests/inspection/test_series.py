"""Many reconstructions of one picture, with the bundled model and with one whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitmae_search.errors import InspectionError, StorageError
from vitmae_search.inspection.figures import iterations_figure, save_figure, sweep_figure
from vitmae_search.inspection.masks import (
    all_but_box,
    fit_mask,
    mask_text,
    pattern_mask,
    read_mask,
)
from vitmae_search.inspection.series import (
    animation_gif,
    in_pattern,
    iterate,
    patch_importance,
    ratio_sweep,
    seed_statistics,
    with_the_same_mask,
)
from vitmae_search.library import Library
from vitmae_search.mask_patterns import PATTERNS
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


@pytest.mark.parametrize("grid", [(8, 8), (14, 14), (3, 7), (1, 1)])
def test_a_mask_is_a_text_and_comes_back(grid: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(grid) < 0.4
    assert np.array_equal(read_mask(mask_text(mask)), mask)
    assert mask_text(all_but_box((2, 3), (0, 0, 1, 2))) == "2x3-3c"
    assert read_mask("2x3-3c").tolist() == [[False, False, True], [True, True, True]]


@pytest.mark.parametrize("text", ["", "8x8", "8x8-ff", "0x4-", "8x8-" + "g" * 16, "99999x99999-0", "2x3-3cc"])
def test_what_is_no_mask_is_refused(text: str) -> None:
    with pytest.raises(InspectionError, match="is no mask"):
        read_mask(text)


def test_a_mask_is_fitted_to_other_patches() -> None:
    quarter = all_but_box((2, 2), (0, 0, 1, 1))
    assert np.array_equal(fit_mask(quarter, (8, 8)), all_but_box((8, 8), (0, 0, 4, 4)))
    assert np.array_equal(fit_mask(fit_mask(quarter, (14, 14)), (2, 2)), quarter)


def test_a_painted_mask_grows_and_is_the_first_that_is_hidden() -> None:
    painted = ~all_but_box(GRID, (1, 1, 3, 3))
    made = ratio_sweep(known, (0.0, 0.125, 0.25, 0.5, 0.99), seed=1, mask=painted)
    counts = [int(each.mask.sum()) for each in made]
    assert counts == [0, 2, 4, 8, 15]
    assert (made[1].mask <= painted).all()
    assert np.array_equal(made[2].mask, painted)
    assert all((after.mask >= before.mask).all() for before, after in pairwise(made))


def test_a_painted_mask_is_hidden_with_every_seed() -> None:
    painted = ~all_but_box(GRID, (1, 1, 3, 3))
    found = seed_statistics(known, 0.5, range(8), painted)
    assert (found.hidden[painted] == 8).all()
    assert found.hidden[~painted].sum() == 8 * 6
    assert found.hidden[~painted].max() < 8


def test_another_model_gets_the_same_mask() -> None:
    def other(*, mask: Any = None) -> Reconstruction:
        return replace(known(), mask=np.zeros((8, 8), bool) if mask is None else mask)

    made = known(mask=all_but_box(GRID, (0, 0, 2, 2)))
    assert np.array_equal(with_the_same_mask(other, made).mask, all_but_box((8, 8), (0, 0, 4, 4)))


def test_the_first_of_many_iterations_has_the_painted_mask() -> None:
    painted = ~all_but_box(GRID, (1, 1, 3, 3))
    image = Image.new("RGB", (8, 8))
    made = iterate(lambda _, **options: known(**options), image, 3, ratio=0.5, seed=4, mask=painted)
    assert np.array_equal(made[0].mask, painted)
    assert np.array_equal(made[1].mask, known(mask_ratio=0.5, seed=5).mask)
    assert len(iterations_figure(made).axes) == 4


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
    with Image.open(BytesIO(animation_gif(made))) as read:
        assert (read.n_frames, read.size, read.info["loop"]) == (4, (512, 256), 0)
