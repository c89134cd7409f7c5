"""Quarter turns, stickers and frames of batches: each against a plain implementation of it."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vitmae_search.training.data.photo_edits import PhotoEdits, edit, random_photo_edits

SIDE = 64


def make_edits(count: int, **changes: Tensor) -> PhotoEdits:
    """No edit but these."""
    none = {"quarter_turns": torch.zeros(count, dtype=torch.long), "sticker": torch.zeros(count, 4)}
    none |= {"sticker_color": torch.zeros(count, 3), "frame": torch.zeros(count, 4)}
    none |= {"frame_color": torch.zeros(count, 3)}
    return PhotoEdits(**{**none, **changes})


@pytest.fixture
def small(photo: Image.Image) -> Image.Image:
    return photo.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


@pytest.fixture
def pixels(small: Image.Image) -> Tensor:
    """(1, 3, 64, 64) float32."""
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float()


def test_no_edit_changes_nothing(pixels: Tensor) -> None:
    torch.testing.assert_close(edit(pixels.clone(), make_edits(1)), pixels, atol=1e-3, rtol=0)


def test_quarter_turns_are_pillows(pixels: Tensor, small: Image.Image) -> None:
    turned = edit(pixels.repeat(4, 1, 1, 1), make_edits(4, quarter_turns=torch.arange(4)))
    for turns, own in enumerate(turned):
        expected = np.asarray(small.rotate(90 * turns))
        assert np.abs(own.permute(1, 2, 0).numpy() - expected).max() < 1e-3


def test_a_sticker_covers_its_box(pixels: Tensor) -> None:
    box, color = torch.tensor([[0.25, 0.5, 0.125, 0.375]]), torch.tensor([[10.0, 200.0, 30.0]])
    covered = edit(pixels.clone(), make_edits(1, sticker=box, sticker_color=color))
    expected = pixels.clone()
    expected[:, :, 16:24, 32:56] = color[:, :, None, None]
    torch.testing.assert_close(covered, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("frame", [(16, 16, 0, 0), (0, 0, 8, 24), (8, 8, 8, 8), (20, 4, 12, 0)])
def test_a_framed_image_is_pillows_resize_into_what_is_free(
    pixels: Tensor, small: Image.Image, frame: tuple[int, int, int, int]
) -> None:
    top, bottom, left, right = frame
    color = torch.tensor([[255.0, 255.0, 255.0]])
    framed = edit(pixels.clone(), make_edits(1, frame=torch.tensor([frame]) / SIDE, frame_color=color))[0]
    inside = framed[:, top : SIDE - bottom, left : SIDE - right]
    size = inside.shape[2], inside.shape[1]
    expected = np.asarray(small.resize(size, Image.Resampling.BICUBIC))
    difference = np.abs(inside.permute(1, 2, 0).numpy() - expected)
    assert difference.mean() < 0.5  # Pillow rounds and clips after each of two passes
    assert difference.max() < 10
    outside = torch.ones(SIDE, SIDE, dtype=torch.bool)
    outside[top : SIDE - bottom, left : SIDE - right] = False
    assert (framed[:, outside] == 255).all()


def test_edits_are_as_frequent_and_as_large_as_they_say() -> None:
    drawn = random_photo_edits(8000, torch.Generator().manual_seed(0))
    framed, stuck = drawn.frame.sum(dim=1) > 0, drawn.sticker[:, 2] > 0
    shares = [float(one.float().mean()) for one in (framed, stuck, drawn.quarter_turns > 0)]
    assert shares == pytest.approx([0.25, 0.15, 0.15], abs=0.015)
    assert set(drawn.quarter_turns.tolist()) == {0, 1, 2, 3}
    top, left, height, width = drawn.sticker.unbind(dim=1)
    assert (top + height).max() <= 1
    assert (left + width).max() <= 1
    rows, columns = drawn.frame[:, :2].sum(dim=1), drawn.frame[:, 2:].sum(dim=1)
    assert 0.5 < max(rows.max(), columns.max()) <= 0.55
    bars = framed & ((rows == 0) | (columns == 0))
    assert float(bars[framed].float().mean()) == pytest.approx(0.4, abs=0.05)
    edited = edit(torch.full((8000, 3, 4, 4), 99.0), drawn)
    assert edited.isfinite().all()
    assert edited.min() >= 0
    assert edited.max() <= 255


def test_equal_seeds_give_equal_edits() -> None:
    first, same, other = (random_photo_edits(50, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    for field in fields(PhotoEdits):
        assert torch.equal(getattr(first, field.name), getattr(same, field.name))
        assert not torch.equal(getattr(first, field.name), getattr(other, field.name))
