"""Mixup (Zhang et al. 2018), CutMix (Yun et al. 2019) and label smoothing of whole batches, as in timm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_CUTMIX_PROBABILITY = 0.5
"""Of a batch, where both are on; timm's `switch_prob`."""


@dataclass(frozen=True, slots=True)
class Mix:
    """How a batch is mixed with itself in reverse order.

    Attributes:
        lam: λ, the weight or area that each photo keeps, 0 to 1.
        box: (top, left, bottom, right) in pixels of what CutMix takes from the partner; None for mixup,
            which blends.
    """

    lam: float
    box: tuple[int, int, int, int] | None = None


def sample_mix(rng: np.random.Generator, *, mixup: float, cutmix: float, side: int) -> Mix:
    """Draw how one batch is mixed.

    The centre of a CutMix box with the area 1 - λ lies anywhere in the image. The box is clipped at the
    image's edges, and λ is corrected for that.

    Args:
        rng: Source of randomness.
        mixup: α of the Beta distribution of mixup's λ; 0 for no mixup.
        cutmix: α of the Beta distribution of CutMix's λ; 0 for no CutMix.
        side: Height and width of the images, in pixels.
    """
    if not (mixup or cutmix):
        return Mix(1.0)
    use_cutmix = rng.random() < _CUTMIX_PROBABILITY if mixup and cutmix else bool(cutmix)
    alpha = cutmix if use_cutmix else mixup
    lam = float(rng.beta(alpha, alpha))
    if not use_cutmix:
        return Mix(lam)
    half = int(side * (1 - lam) ** 0.5) // 2
    row, column = (int(value) for value in rng.integers(0, side, 2))
    top, bottom = max(row - half, 0), min(row + half, side)
    left, right = max(column - half, 0), min(column + half, side)
    return Mix(1 - (bottom - top) * (right - left) / side**2, (top, left, bottom, right))


def mix_pixels(pixels: Tensor, mix: Mix) -> Tensor:
    """Mix photo i with photo N - 1 - i.

    Args:
        pixels: (N, C, H, W).
        mix: As of `sample_mix`.
    """
    partners = pixels.flip(0)
    if mix.box is None:
        return pixels if mix.lam == 1 else mix.lam * pixels + (1 - mix.lam) * partners
    top, left, bottom, right = mix.box
    mixed = pixels.clone()
    mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    return mixed


def soft_targets(labels: Tensor, classes: int, *, smoothing: float = 0.0, mix: Mix | None = None) -> Tensor:
    """Class probabilities to learn: smoothed, then mixed as the photos are.

    Args:
        labels: (N,) int64.
        classes: Number of classes.
        smoothing: The probability that is spread evenly over all classes, in [0, 1).
        mix: How the photos are mixed.

    Returns:
        (N, classes) float32; each row sums to 1.
    """
    targets = functional.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes
    lam = 1.0 if mix is None else mix.lam
    return targets if lam == 1 else lam * targets + (1 - lam) * targets.flip(0)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy, in float32.

    Args:
        logits: (N, classes).
        targets: (N, classes), probabilities.
    """
    return -(targets * torch.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
