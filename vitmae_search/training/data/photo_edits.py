"""What people do to photos before they search with them: quarter turns, stickers and frames, by the batch.

A frame is what a screenshot, a page's margin or a viewer leaves around a photo. The photo is resized into
what the frame leaves free.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitmae_search.training.data.color_jitter import random_gray
from vitmae_search.training.data.random_resized_crop import resampling_matrix
from vitmae_search.training.transfer import to_device

_P_FRAME, _P_STICKER, _P_QUARTER_TURN = 0.25, 0.15, 0.15
"""Probabilities for each image."""
_MAX_BARS, _MAX_MARGIN = 0.55, 0.2
"""Greatest share of a side that two opposite bars cover, and that one margin covers."""
_MAX_STICKER_WIDTH, _MAX_STICKER_HEIGHT = 0.6, 0.25
"""Shares of the image's sides."""


@dataclass(frozen=True, slots=True)
class PhotoEdits:
    """Edits of N images; lengths are shares of the image's side.

    Attributes:
        quarter_turns: (N,) int64, counter-clockwise turns by 90°, 0 to 3.
        sticker: (N, 4) float32: top, left, height, width; a height of 0 is no sticker.
        sticker_color: (N, 3) float32 in 0 to 255.
        frame: (N, 4) float32: widths at the top, bottom, left and right; four zeros are no frame.
        frame_color: (N, 3) float32 in 0 to 255.
    """

    quarter_turns: Tensor
    sticker: Tensor
    sticker_color: Tensor
    frame: Tensor
    frame_color: Tensor


def random_photo_edits(count: int, generator: torch.Generator) -> PhotoEdits:
    """Draw the edits of a batch.

    A quarter get a frame: bars at two opposite sides, equal margins, or four different ones. 15 % get a
    sticker, and 15 % are turned by 90, 180 or 270°.

    Args:
        count: Images in the batch.
        generator: Source of randomness, on the CPU.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand((count, *shape), generator=generator)

    def bernoulli(probability: float) -> Tensor:
        return uniform() < probability

    turns = torch.randint(1, 4, (count,), generator=generator) * bernoulli(_P_QUARTER_TURN)
    height, width = uniform() * _MAX_STICKER_HEIGHT, uniform() * _MAX_STICKER_WIDTH
    top, left = uniform() * (1 - height), uniform() * (1 - width)
    sticker = torch.stack([top, left, height, width], dim=1) * bernoulli(_P_STICKER)[:, None]
    frame = _random_frames(uniform()[:, None], uniform(4)) * bernoulli(_P_FRAME)[:, None]
    gray = random_gray(count, generator)
    return PhotoEdits(turns, sticker, uniform(3) * 255, frame, gray[:, None].expand(-1, 3))


def _random_frames(kind: Tensor, draw: Tensor) -> Tensor:
    """(N, 4): 40 % bars above and below or at the sides, 40 % equal margins, 20 % four different ones."""
    total, share = draw[:, :1] * _MAX_BARS, (0.8 + 0.4 * draw[:, 1:2]) / 2
    pair = torch.cat([total * share, total * (1 - share)], dim=1)
    bars = torch.where(draw[:, 2:3] < 0.7, torch.cat([pair, pair * 0], 1), torch.cat([pair * 0, pair], 1))
    margins = (draw[:, :1] * _MAX_MARGIN).expand(-1, 4)
    return torch.where(kind < 0.4, bars, torch.where(kind < 0.8, margins, draw * _MAX_MARGIN))


def edit(pixels: Tensor, edits: PhotoEdits) -> Tensor:
    """Turn, cover and frame a batch of square images.

    Args:
        pixels: (N, 3, S, S) float32 in 0 to 255; changed in place.
        edits: Those of each image.

    Returns:
        (N, 3, S, S) float32 in 0 to 255.
    """
    edits = to_device(edits, pixels.device)
    for turns in (1, 2, 3):
        turned = (edits.quarter_turns == turns)[:, None, None, None]
        pixels = torch.where(turned, pixels.rot90(turns, (2, 3)), pixels)
    return _frame(_cover(pixels, edits), edits)


def _cover(pixels: Tensor, edits: PhotoEdits) -> Tensor:
    """Paint the stickers."""
    centers = (torch.arange(pixels.shape[-1], device=pixels.device) + 0.5) / pixels.shape[-1]
    top, left, height, width = edits.sticker[:, :, None].unbind(1)
    rows = (centers >= top) & (centers < top + height)
    columns = (centers >= left) & (centers < left + width)
    inside = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(inside, edits.sticker_color[:, :, None, None], pixels)


def _frame(pixels: Tensor, edits: PhotoEdits) -> Tensor:
    """Resize each image into what its frame leaves free, and fill the rest with the frame's color."""
    size = pixels.shape[-1]
    top, bottom, left, right = edits.frame.unbind(1)
    rows, row_inside = _placement(top, bottom, size)
    columns, column_inside = _placement(left, right, size)
    small = rows[:, None] @ pixels @ columns.transpose(1, 2)[:, None]
    inside = (row_inside[:, :, None] & column_inside[:, None, :])[:, None]
    return torch.where(inside, small.clamp_(0, 255), edits.frame_color[:, :, None, None])


def _placement(before: Tensor, after: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The matrix (N, S, S) that resizes a side into its free part, and (N, S) which outputs that part is."""
    scale = 1 / (1 - before - after)
    matrix = resampling_matrix(-before * scale * size, scale * size, size, size)
    centers = (torch.arange(size, device=before.device) + 0.5) / size
    inside = (centers >= before[:, None]) & (centers < 1 - after[:, None])
    return matrix, inside
