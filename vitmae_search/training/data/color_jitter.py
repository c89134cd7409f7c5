"""Random rotation and colours for whole batches, beside the crop: other looks of the same photo.

The colour changes are those of SimCLR (Chen et al. 2020, arXiv 2002.05709) without hue. All of them are
affine maps of a pixel's three channels, so that together they are one matrix product an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vitmae_search.training.data.random_resized_crop import Crops, resize_crops, rows_of
from vitmae_search.training.transfer import send

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
_ANGLE = math.radians(15)
_JITTER, _CAST = 0.4, 0.1
_ROTATED, _COLOURED, _GREYED = 0.5, 0.8, 0.2  # shares of the images


@dataclass(frozen=True, slots=True)
class Looks:
    """How each of N images is turned and coloured: float32 of shape (N,), and (N, 3) for `cast`.

    `angle` in radians, 0 for none. `brightness`, `contrast`, `saturation` and the `cast` of each channel are
    factors, 1 for none. `grey` bool of shape (N,) takes the colours away.
    """

    angle: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    cast: Tensor
    grey: Tensor


def random_looks(count: int, generator: torch.Generator) -> Looks:
    """Half of the images turned by up to 15°, four fifths in other colours, one fifth grey.

    Brightness, contrast and saturation change by up to 40 %, the channels' balance by up to 10 %.
    """

    def chosen(share: float) -> Tensor:
        return torch.rand(count, generator=generator) < share

    def evenly(most: float, channels: int = 1) -> Tensor:
        return (torch.rand((count, channels), generator=generator) * 2 - 1).mul_(most).squeeze(1)

    coloured = chosen(_COLOURED).to(torch.float32)
    brightness, contrast, saturation = (1 + evenly(_JITTER) * coloured for _ in range(3))
    cast = 1 + evenly(_CAST, 3) * coloured[:, None]
    angle = torch.where(chosen(_ROTATED), evenly(_ANGLE), 0.0)
    return Looks(angle, brightness, contrast, saturation, cast, chosen(_GREYED))


@dataclass(frozen=True, slots=True)
class Turns:
    """Which of N images are turned, and which are not: int64 rows. `grey` (3,) are the weights of grey.

    Made on the host, where that is known: a device would have to be waited for.
    """

    upright: Tensor
    turned: Tensor
    grey: Tensor

    @classmethod
    def of(cls, looks: Looks) -> Turns:
        upright = looks.angle == 0
        return cls(upright.nonzero().squeeze(1), (~upright).nonzero().squeeze(1), torch.tensor(_GREY))


def look_at(images: Tensor, crops: Crops, looks: Looks, size: int, turns: Turns | None = None) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, size, size) float32 in 0 to 255: cropped, turned, coloured.

    All of it where the images are. `turns` are those of `looks`, where these are not on the host.
    """
    crops, looks, turns = send((crops, looks, turns or Turns.of(looks)), images.device)
    pixels = torch.empty((len(images), 3, size, size), device=images.device)
    for rows, cut in ((turns.upright, _upright), (turns.turned, _turned)):
        if len(rows):
            pixels[rows] = cut(images[rows], rows_of(crops, rows), looks.angle[rows], size)
    return _colour(pixels, looks, turns.grey)


def _upright(images: Tensor, crops: Crops, angle: Tensor, size: int) -> Tensor:
    return resize_crops(images, crops, size)


def _turned(images: Tensor, crops: Crops, angle: Tensor, size: int) -> Tensor:
    """The crops' boxes turned about their middles; bilinear, mirrored where they stick out of the photo."""
    height, width = images.shape[1:3]
    cos, sin = angle.cos(), angle.sin()
    across = torch.where(crops.flipped, -crops.width, crops.width)
    rows = [
        [across * cos / width, -crops.height * sin / width, (2 * crops.left + crops.width) / width - 1],
        [across * sin / height, crops.height * cos / height, (2 * crops.top + crops.height) / height - 1],
    ]
    theta = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    grid = functional.affine_grid(theta, [len(images), 3, size, size], align_corners=False)
    planes = images.permute(0, 3, 1, 2).to(torch.float32)
    return functional.grid_sample(planes, grid, padding_mode="reflection", align_corners=False)


def _colour(pixels: Tensor, looks: Looks, grey: Tensor) -> Tensor:
    """Brightness, then contrast about the mean grey, saturation about each pixel's own grey, and the cast.

    With g the weights of grey, μ the mean colour, K the cast's diagonal and S = s·I + (1 - s)·1gᵀ, which
    leaves grey as it is, x becomes b·c·K·S·x + b·(1 - c)·(g·μ)·K·1. Grey images have 1gᵀ in place of K·S.
    """
    to_grey = grey.expand(3, 3)
    saturated = torch.lerp(to_grey, torch.eye(3, device=grey.device), looks.saturation[:, None, None])
    balanced = looks.cast[:, :, None] * saturated
    mixed = torch.where(looks.grey[:, None, None], to_grey, balanced)
    factor = (looks.brightness * looks.contrast)[:, None, None]
    level = (looks.brightness * (1 - looks.contrast))[:, None]
    lift = level * torch.where(looks.grey[:, None], 1.0, looks.cast)
    flat = pixels.flatten(2)
    mean_grey = flat.mean(dim=2) @ grey
    offset = (mean_grey[:, None] * lift)[:, :, None]
    out = torch.baddbmm(offset, mixed * factor, flat)
    return out.clamp_(0, 255).view_as(pixels)
