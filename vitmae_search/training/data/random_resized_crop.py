"""RandomResizedCrop and flip for whole uint8 batches, as two matrix products an image.

A crop and a resize are linear and separable, so each image gets a row matrix and a column matrix that
hold the resampling filter. That is Pillow's antialiased bicubic resize (torchvision's, too) to within
rounding, on any device, for a batch at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from vitmae_search.training.transfer import send

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")

_ATTEMPTS = 10  # torchvision's number of tries before it falls back to the largest central crop


@dataclass(frozen=True, slots=True)
class Crops:
    """One box an image, int64 of shape (N,), in pixels; `flipped` bool of shape (N,)."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flipped: Tensor


def random_crops(
    count: int,
    height: int,
    width: int,
    *,
    scale: tuple[float, float],
    flip: bool,
    generator: torch.Generator,
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Crops:
    """Boxes as torchvision's RandomResizedCrop draws them: area and aspect at random, tried ten times.

    `scale` is the area's range as a share of the picture, `ratio` the aspect's (width / height), drawn
    evenly in its logarithm. Where all ten tries stick out, the box is the whole picture.
    """
    shape = (count, _ATTEMPTS)
    area = height * width * torch.empty(shape).uniform_(*scale, generator=generator)
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.empty(shape).uniform_(log_low, log_high, generator=generator).exp()
    w = (area * aspect).sqrt().round().long()
    h = (area / aspect).sqrt().round().long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(dim=1, keepdim=True)
    found = fits.any(dim=1)
    w = torch.where(found, w.gather(1, first).squeeze(1), width)
    h = torch.where(found, h.gather(1, first).squeeze(1), height)
    place = torch.rand((2, count), generator=generator)
    top = (place[0] * (height - h + 1)).long().clamp_(max=height - 1)
    left = (place[1] * (width - w + 1)).long().clamp_(max=width - 1)
    flipped = torch.rand(count, generator=generator) < (0.5 if flip else 0.0)
    return Crops(top, left, h, w, flipped)


def rows_of(record: R, rows: Tensor | slice) -> R:
    """Some rows of a dataclass whose every field is a tensor with a row an image."""
    return type(record)(*(getattr(record, field.name)[rows] for field in fields(record)))


def resize_crops(images: Tensor, crops: Crops, size: int) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, size, size) float32 in 0 to 255, bicubic with antialiasing.

    All of it where the images are.
    """
    count, height, width, channels = images.shape
    crops = send(crops, images.device)
    rows = _resampling(crops.top, crops.height, height, size)  # (N, size, H)
    columns = _resampling(crops.left, crops.width, width, size)
    columns = torch.where(crops.flipped[:, None, None], columns.flip(1), columns)  # (N, size, W)
    pixels = images.to(torch.float32)
    tall = torch.bmm(rows, pixels.reshape(count, height, width * channels))
    tall = tall.reshape(count, size, width, channels).permute(0, 3, 1, 2)  # (N, 3, size, W)
    out = torch.matmul(tall, columns.transpose(1, 2).unsqueeze(1))
    return out.clamp_(0, 255)


def _resampling(start: Tensor, length: Tensor, source: int, size: int) -> Tensor:
    """(N, size, source): row i weighs the source pixels that make output pixel i of the box."""
    begin = start.to(torch.float32)[:, None, None]
    extent = length.to(torch.float32)[:, None, None]
    scale = extent / size
    out = torch.arange(size, dtype=torch.float32, device=start.device)[None, :, None]
    pixel = torch.arange(source, dtype=torch.float32, device=start.device)[None, None, :]
    centre = begin + (out + 0.5) * scale
    weight = _cubic((pixel + 0.5 - centre) / scale.clamp(min=1.0))
    inside = (pixel >= begin) & (pixel < begin + extent)  # as if cropped first: nothing leaks in
    weight = weight * inside
    return weight / weight.sum(dim=2, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    """Keys's cubic convolution kernel with a = -0.5, Pillow's BICUBIC."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
