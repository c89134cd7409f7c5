"""Random resized crops and horizontal flips of whole uint8 batches, on any device.

A crop followed by a resize is linear and separable, so each image gets one matrix for its rows and one for
its columns, which hold the weights of the resampling filter. The result is Pillow's (and torchvision's)
antialiased bicubic resize to within rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from vitmae_search.training.transfer import to_device

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")

_ATTEMPTS = 10
"""As in torchvision, which then falls back to a central crop."""


@dataclass(frozen=True, slots=True)
class Crops:
    """One box for each of N images.

    Attributes:
        top: (N,) int64, in pixels.
        left: (N,) int64, in pixels.
        height: (N,) int64, in pixels.
        width: (N,) int64, in pixels.
        flipped: (N,) bool, whether the crop is mirrored horizontally.
    """

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
    """Draw boxes as torchvision's `RandomResizedCrop` and `RandomHorizontalFlip` do.

    Area and aspect ratio are drawn until the box fits, ten times at most; after that the box is the whole
    image.

    Args:
        count: Images in the batch.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        scale: Least and greatest area, as a share of the image's.
        flip: Mirror half of the crops.
        generator: Source of randomness, on the CPU.
        ratio: Least and greatest width / height; its logarithm is drawn uniformly.
    """
    shape = (count, _ATTEMPTS)
    area = height * width * torch.empty(shape).uniform_(*scale, generator=generator)
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.empty(shape).uniform_(log_low, log_high, generator=generator).exp()
    w = (area * aspect).sqrt().round().long()
    h = (area / aspect).sqrt().round().long()
    # The first attempt that fits, or the whole image.
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(dim=1, keepdim=True)
    found = fits.any(dim=1)
    w = torch.where(found, w.gather(1, first).squeeze(1), width)
    h = torch.where(found, h.gather(1, first).squeeze(1), height)
    position = torch.rand((2, count), generator=generator)
    top = (position[0] * (height - h + 1)).long().clamp_(max=height - 1)
    left = (position[1] * (width - w + 1)).long().clamp_(max=width - 1)
    flipped = torch.rand(count, generator=generator) < (0.5 if flip else 0.0)
    return Crops(top, left, h, w, flipped)


def select_rows(record: R, rows: Tensor | slice) -> R:
    """Some images' entries of a dataclass of tensors.

    Args:
        record: Every field is a tensor whose first dimension is the image.
        rows: int64 indices or a slice.
    """
    return type(record)(*(getattr(record, field.name)[rows] for field in fields(record)))


def resize_crops(images: Tensor, crops: Crops, size: int) -> Tensor:
    """Cut out the crops and resize them, bicubic with antialiasing, on the images' device.

    Args:
        images: (N, H, W, 3) uint8.
        crops: A box for each image.
        size: Height and width of the result, in pixels.

    Returns:
        (N, 3, size, size) float32 in 0 to 255.
    """
    count, height, width, channels = images.shape
    crops = to_device(crops, images.device)
    rows = resampling_matrix(crops.top, crops.height, height, size)  # (N, size, H)
    columns = resampling_matrix(crops.left, crops.width, width, size)
    columns = torch.where(crops.flipped[:, None, None], columns.flip(1), columns)  # (N, size, W)
    pixels = images.to(torch.float32)
    tall = torch.bmm(rows, pixels.reshape(count, height, width * channels))
    tall = tall.reshape(count, size, width, channels).permute(0, 3, 1, 2)  # (N, 3, size, W)
    out = torch.matmul(tall, columns.transpose(1, 2).unsqueeze(1))
    return out.clamp_(0, 255)


def resampling_matrix(start: Tensor, length: Tensor, source: int, size: int) -> Tensor:
    """The weights of a box's resize along one side.

    Args:
        start: (N,) where the box begins, in source pixels; it may begin before the first one.
        length: (N,) its length in source pixels.
        source: Source pixels along the side.
        size: Output pixels along the side.

    Returns:
        (N, size, source) float32: row i weighs the source pixels that make output pixel i. Rows of output
        pixels that lie outside the source are undefined.
    """
    begin = start.to(torch.float32)[:, None, None]
    extent = length.to(torch.float32)[:, None, None]
    scale = extent / size
    out = torch.arange(size, dtype=torch.float32, device=start.device)[None, :, None]
    pixel = torch.arange(source, dtype=torch.float32, device=start.device)[None, None, :]
    centre = begin + (out + 0.5) * scale
    weight = _bicubic_kernel((pixel + 0.5 - centre) / scale.clamp(min=1.0))
    inside = (pixel >= begin) & (pixel < begin + extent)  # pixels outside the crop have no weight
    weight = weight * inside
    return weight / weight.sum(dim=2, keepdim=True)


def _bicubic_kernel(x: Tensor) -> Tensor:
    """Cubic convolution with a = -0.5 (Keys 1981), as in Pillow's BICUBIC."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
