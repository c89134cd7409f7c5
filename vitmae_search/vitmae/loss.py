"""The pretraining loss: squared error on the pixels of removed patches (paper, section 3)."""

from __future__ import annotations

from torch import Tensor

_VARIANCE_FLOOR = 1e-6


def normalise_patches(patches: Tensor) -> Tensor:
    """Each patch (..., p²·C) to mean 0 and deviation 1 over its own values: the norm_pix_loss target."""
    mean, deviation = patch_statistics(patches)
    return (patches - mean) / deviation


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch (..., p²·C), both (..., 1); the unbiased variance, plus 1e-6."""
    mean = patches.mean(dim=-1, keepdim=True)
    variance = patches.var(dim=-1, keepdim=True)
    return mean, (variance + _VARIANCE_FLOOR) ** 0.5


def patch_errors(logits: Tensor, patches: Tensor, *, norm_pix_loss: bool) -> Tensor:
    """Mean squared error of each patch, (N, L), in the units of the loss.

    `logits` and `patches` are (N, L, p²·C); `patches` are the pixel values that went in, patchified.
    """
    target = normalise_patches(patches) if norm_pix_loss else patches
    return ((logits - target) ** 2).mean(dim=-1)


def reconstruction_loss(logits: Tensor, patches: Tensor, mask: Tensor, *, norm_pix_loss: bool) -> Tensor:
    """The mean of `patch_errors` over removed patches (`mask` (N, L), 1 = removed): a scalar.

    Without a removed patch there is no such mean (0/0, NaN); the model's `loss` is None there.
    """
    errors = patch_errors(logits, patches, norm_pix_loss=norm_pix_loss)
    return (errors * mask).sum() / mask.sum()
