"""The comparison of reconstructions: what is compared, and that no way of filling in sees the answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.reconstructions import FILLS, Model, compare, draw, random_mask, similarity
from vitmae_search.bundled import DEFAULT_MODEL, bundled

RAMP = (
    np.stack(np.meshgrid(np.arange(64), np.arange(64), [90, 60, 30], indexing="ij"), 0)
    .sum(0)
    .astype(np.uint8)
)
HIDDEN = np.kron(random_mask((8, 8), 0.5, seed=3), np.ones((8, 8))) > 0


def test_only_hidden_pixels_count() -> None:
    assert similarity(RAMP, RAMP, HIDDEN) == pytest.approx((48.13, 1.0), abs=0.01)
    changed = np.where(HIDDEN[..., None], RAMP + np.uint8(10), RAMP)
    found = similarity(RAMP, changed, HIDDEN)
    assert found.psnr == pytest.approx(20 * np.log10(255 / 10))
    assert 0 < found.ssim < 1
    assert similarity(RAMP, changed, ~HIDDEN).psnr == pytest.approx(48.13, abs=0.01)


@pytest.mark.parametrize("name", FILLS)
def test_no_fill_sees_what_is_hidden(name: str) -> None:
    other = np.where(HIDDEN[..., None], np.uint8(200), RAMP)
    first, second = (FILLS[name](photo, HIDDEN)[HIDDEN] for photo in (RAMP, other))
    assert first.dtype == np.uint8
    assert (first == second).all()


def test_smooth_surfaces_continue_a_ramp_and_the_mean_does_not() -> None:
    psnr = {
        name: similarity(RAMP, np.where(HIDDEN[..., None], fill(RAMP, HIDDEN), RAMP), HIDDEN).psnr
        for name, fill in FILLS.items()
    }
    assert psnr["mean colour"] < 25 < psnr["bicubic"] < psnr["biharmonic"]


def test_every_way_fills_the_same_patches_of_every_photo(real_photos: dict[str, Path]) -> None:
    photos = [str(real_photos[name]) for name in ("chelsea", "coffee")]
    model = Model(bundled("data/models") / DEFAULT_MODEL)
    found = compare(photos, [model], 0.75)
    assert set(found) == {DEFAULT_MODEL, f"{DEFAULT_MODEL}, softened", *FILLS}
    assert all(len(figures) == 2 for figures in found.values())
    assert found[DEFAULT_MODEL][0].psnr > found["mean colour"][0].psnr
    assert compare(photos, [model], 0.75) == found
    rows, columns, gap = 4, 4, 8
    assert draw(photos, [model]).size == (columns * (128 + gap) + gap, rows * (128 + gap) + gap)
