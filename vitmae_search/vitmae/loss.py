"""The pretraining loss, squared error on the pixels of removed patches (paper, section 3), and a head's."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vitmae_search.errors import ConfigError

_VARIANCE_FLOOR = 1e-6


def normalise_patches(patches: Tensor) -> Tensor:
    """Each patch (..., ph·pw·C) less its mean, over its deviation, as `patch_statistics` has them.

    That is the target of norm_pix_loss; layer norm, whose variance is the biased one, makes it in one pass.
    """
    count = patches.shape[-1]
    share = (count - 1) / count
    scaled: Tensor = functional.layer_norm(patches, (count,), eps=share * _VARIANCE_FLOOR) * share**0.5
    return scaled


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch (..., ph·pw·C), both (..., 1); the unbiased variance, plus 1e-6."""
    mean = patches.mean(dim=-1, keepdim=True)
    variance = patches.var(dim=-1, keepdim=True)
    return mean, (variance + _VARIANCE_FLOOR) ** 0.5


def patch_errors(logits: Tensor, patches: Tensor, *, norm_pix_loss: bool) -> Tensor:
    """Mean squared error of each patch, (N, L), in the units of the loss.

    `logits` and `patches` are (N, L, ph·pw·C); `patches` are the pixel values that went in, patchified.
    """
    target = normalise_patches(patches) if norm_pix_loss else patches
    return ((logits - target) ** 2).mean(dim=-1)


def reconstruction_loss(logits: Tensor, patches: Tensor, mask: Tensor, *, norm_pix_loss: bool) -> Tensor:
    """The mean of `patch_errors` over removed patches (`mask` (N, L), 1 = removed): a scalar.

    Without a removed patch there is no such mean (0/0, NaN); the model's `loss` is None there.
    """
    errors = patch_errors(logits, patches, norm_pix_loss=norm_pix_loss)
    return (errors * mask).sum() / mask.sum()


def classification_loss(logits: Tensor, labels: Tensor, problem_type: str | None = None) -> Tensor:
    """A head's loss, a scalar. `logits` (N, K).

    "single_label_classification": cross-entropy with `labels` (N,) int64. "multi_label_classification":
    binary cross-entropy with `labels` (N, K) in [0, 1]. "regression": squared error with `labels` (N,) or
    (N, K). Where None: regression for one logit, else by the labels, single for integers and multi for
    floating point, as the reference decides.
    """
    labels, classes = labels.to(logits.device), logits.shape[-1]
    if problem_type is None:
        integers = labels.dtype in (torch.int64, torch.int32)
        several = "single_label_classification" if integers else "multi_label_classification"
        problem_type = "regression" if classes == 1 else several
    if problem_type == "regression":
        target = labels.reshape(logits.shape).to(logits.dtype)
        return functional.mse_loss(logits, target)
    if problem_type == "single_label_classification":
        return functional.cross_entropy(logits.view(-1, classes), labels.view(-1).long())
    if problem_type == "multi_label_classification":
        return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    raise ConfigError("problem_type", problem_type, "is no kind of problem that has a loss here")
