"""Random rotations and color jitter of whole batches, combined with the crop.

Brightness, contrast, saturation and grayscale are those of SimCLR (Chen et al. 2020, arXiv 2002.05709,
appendix A), without hue; white balance is changed in its place. All color changes are affine maps of a
pixel's three channels, so together they are one matrix product for each image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vitmae_search.training.data.random_resized_crop import Crops, resize_crops, select_rows
from vitmae_search.training.transfer import to_device

_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grayscale, ITU-R BT.601."""
_MAX_ANGLE = math.radians(15)
_MAX_JITTER, _MAX_GAIN = 0.4, 0.1
_P_ROTATE, _P_FILL, _P_JITTER, _P_GRAYSCALE = 0.5, 0.5, 0.8, 0.2
"""Probabilities for each image."""


@dataclass(frozen=True, slots=True)
class ColorJitter:
    """Rotation and color changes of N images.

    Attributes:
        angle: (N,) float32, in radians; 0 for no rotation.
        corner: (N,) float32, gray level in 0 to 255 of what a rotation brings in from outside the image;
            negative for the image's reflection.
        brightness: (N,) float32 factor; 1 for no change.
        contrast: (N,) float32 factor.
        saturation: (N,) float32 factor.
        channel_gain: (N, 3) float32 factors of red, green and blue (white balance).
        grayscale: (N,) bool.
    """

    angle: Tensor
    corner: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    channel_gain: Tensor
    grayscale: Tensor


def random_color_jitter(count: int, generator: torch.Generator) -> ColorJitter:
    """Draw the changes of a batch.

    Half of the images are rotated by up to 15°, half of these with black, white or gray corners. Four
    fifths change brightness, contrast and saturation by up to 40 % and each channel's gain by up to 10 %.
    One fifth become grayscale.

    Args:
        count: Images in the batch.
        generator: Source of randomness, on the CPU.
    """

    def bernoulli(probability: float) -> Tensor:
        return torch.rand(count, generator=generator) < probability

    def uniform(greatest: float, channels: int = 1) -> Tensor:
        return (torch.rand((count, channels), generator=generator) * 2 - 1).mul_(greatest).squeeze(1)

    jittered = bernoulli(_P_JITTER).to(torch.float32)
    brightness, contrast, saturation = (1 + uniform(_MAX_JITTER) * jittered for _ in range(3))
    channel_gain = 1 + uniform(_MAX_GAIN, 3) * jittered[:, None]
    angle = torch.where(bernoulli(_P_ROTATE), uniform(_MAX_ANGLE), 0.0)
    corner = torch.where(bernoulli(_P_FILL), random_gray(count, generator), -1.0)
    return ColorJitter(angle, corner, brightness, contrast, saturation, channel_gain, bernoulli(_P_GRAYSCALE))


def random_gray(count: int, generator: torch.Generator) -> Tensor:
    """Draw gray levels: a third black, a third white, a third between, as backgrounds of pages and viewers.

    Args:
        count: Levels to draw.
        generator: Source of randomness, on the CPU.

    Returns:
        (count,) float32 in 0 to 255.
    """
    return (torch.rand(count, generator=generator) * 3 - 1).clamp_(0, 1) * 255


@dataclass(frozen=True, slots=True)
class RotationSplit:
    """Which of N images are rotated, and the weights of grayscale.

    Computed on the host, where the angles are known: reading them from a device would wait for it.

    Attributes:
        unrotated: int64 rows.
        rotated: int64 rows.
        luma: (3,) float32, weights of the channels in grayscale.
    """

    unrotated: Tensor
    rotated: Tensor
    luma: Tensor

    @classmethod
    def of(cls, jitter: ColorJitter) -> RotationSplit:
        """The split of these images; `jitter` is on the CPU."""
        unrotated = jitter.angle == 0
        return cls(unrotated.nonzero().squeeze(1), (~unrotated).nonzero().squeeze(1), torch.tensor(_LUMA))


def augment(
    images: Tensor, crops: Crops, jitter: ColorJitter, size: int, split: RotationSplit | None = None
) -> Tensor:
    """Crop, rotate and change the colors of a batch, on the images' device.

    Args:
        images: (N, H, W, 3) uint8.
        crops: A box for each image.
        jitter: The changes of each image.
        size: Height and width of the result, in pixels.
        split: That of `jitter`; needed where `jitter` is not on the CPU.

    Returns:
        (N, 3, size, size) float32 in 0 to 255.
    """
    crops, jitter, split = to_device((crops, jitter, split or RotationSplit.of(jitter)), images.device)
    pixels = torch.empty((len(images), 3, size, size), device=images.device)
    if len(split.unrotated):
        rows = split.unrotated
        pixels[rows] = resize_crops(images[rows], select_rows(crops, rows), size)
    if len(split.rotated):
        rows = split.rotated
        pixels[rows] = _rotated_crops(images[rows], select_rows(crops, rows), select_rows(jitter, rows), size)
    return _change_colors(pixels, jitter, split.luma)


def _rotated_crops(images: Tensor, crops: Crops, jitter: ColorJitter, size: int) -> Tensor:
    """The boxes rotated about their centres: bilinear, with reflection or a gray outside the image."""
    height, width = images.shape[1:3]
    cos, sin = jitter.angle.cos(), jitter.angle.sin()
    across = torch.where(crops.flipped, -crops.width, crops.width)
    rows = [
        [across * cos / width, -crops.height * sin / width, (2 * crops.left + crops.width) / width - 1],
        [across * sin / height, crops.height * cos / height, (2 * crops.top + crops.height) / height - 1],
    ]
    theta = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    grid = functional.affine_grid(theta, [len(images), 3, size, size], align_corners=False)
    planes = images.permute(0, 3, 1, 2).to(torch.float32)
    sampled = functional.grid_sample(planes, grid, padding_mode="reflection", align_corners=False)
    corner = jitter.corner[:, None, None]
    filled = (grid.abs() > 1).any(dim=3) & (corner >= 0)
    return torch.where(filled[:, None], corner[:, None], sampled)


def _change_colors(pixels: Tensor, jitter: ColorJitter, luma: Tensor) -> Tensor:
    """Brightness, contrast about the mean gray, saturation about each pixel's own gray, channel gains.

    With g the luma weights, μ the mean color, K the diagonal of channel gains and
    S = s·I + (1 - s)·1gᵀ, which leaves gray as it is, x becomes b·c·K·S·x + b·(1 - c)·(g·μ)·K·1.
    Grayscale images have 1gᵀ in place of K·S.
    """
    to_gray = luma.expand(3, 3)
    saturated = torch.lerp(to_gray, torch.eye(3, device=luma.device), jitter.saturation[:, None, None])
    balanced = jitter.channel_gain[:, :, None] * saturated
    matrix = torch.where(jitter.grayscale[:, None, None], to_gray, balanced)
    factor = (jitter.brightness * jitter.contrast)[:, None, None]
    level = (jitter.brightness * (1 - jitter.contrast))[:, None]
    lift = level * torch.where(jitter.grayscale[:, None], 1.0, jitter.channel_gain)
    flat = pixels.flatten(2)
    mean_gray = flat.mean(dim=2) @ luma
    offset = (mean_gray[:, None] * lift)[:, :, None]
    out = torch.baddbmm(offset, matrix * factor, flat)
    return out.clamp_(0, 255).view_as(pixels)
