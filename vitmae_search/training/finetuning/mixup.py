"""Soft targets, mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019), a whole batch at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_CUTMIX_SHARE = 0.5  # of the batches, where both are on; timm's switch_prob


@dataclass(frozen=True, slots=True)
class Mix:
    """How a batch is mixed with itself in reverse order.

    `share` λ is what each photo keeps, 0 to 1. `box` is (top, left, bottom, right) in pixels of what comes
    from the partner instead, None for mixup, which blends.
    """

    share: float
    box: tuple[int, int, int, int] | None = None


def draw_mix(rng: np.random.Generator, *, mixup: float, cutmix: float, side: int) -> Mix:
    """One batch's mix: λ from Beta(α, α), α being `mixup` or `cutmix`; 0 leaves that one out.

    A cutmix box of a share 1 - λ of the picture has its centre anywhere; what sticks out is cut off, and λ
    is then what the box really leaves.
    """
    if not (mixup or cutmix):
        return Mix(1.0)
    cut = rng.random() < _CUTMIX_SHARE if mixup and cutmix else bool(cutmix)
    share = float(rng.beta(*(2 * (cutmix if cut else mixup,))))
    if not cut:
        return Mix(share)
    half = int(side * (1 - share) ** 0.5) // 2
    row, column = (int(place) for place in rng.integers(0, side, 2))
    top, bottom = max(row - half, 0), min(row + half, side)
    left, right = max(column - half, 0), min(column + half, side)
    return Mix(1 - (bottom - top) * (right - left) / side**2, (top, left, bottom, right))


def mix_pixels(pixels: Tensor, mix: Mix) -> Tensor:
    """(N, C, H, W), photo i mixed with photo N - 1 - i."""
    partners = pixels.flip(0)
    if mix.box is None:
        return pixels if mix.share == 1 else mix.share * pixels + (1 - mix.share) * partners
    top, left, bottom, right = mix.box
    mixed = pixels.clone()
    mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    return mixed


def soft_targets(labels: Tensor, classes: int, *, smoothing: float = 0.0, mix: Mix | None = None) -> Tensor:
    """(N,) int64 to (N, classes) float32, each row of sum 1: smoothed, then mixed as the photos are."""
    targets = functional.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes
    share = 1.0 if mix is None else mix.share
    return targets if share == 1 else share * targets + (1 - share) * targets.flip(0)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of (N, K) logits with (N, K) targets, in float32."""
    return -(targets * torch.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
