"""Losses: squared error on the pixels of removed patches (paper, section 3), and those of a classifier."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vitmae_search.errors import ConfigError

_VARIANCE_FLOOR = 1e-6
"""Added to a patch's variance, as in the authors' code (`models_mae.py`)."""


def normalise_patches(patches: Tensor) -> Tensor:
    """Normalise each patch (..., ph·pw·C) by its own `patch_statistics`: the target of `norm_pix_loss`."""
    # Layer norm does it in one pass. Its variance is the biased one, hence the factors.
    count = patches.shape[-1]
    share = (count - 1) / count
    scaled: Tensor = functional.layer_norm(patches, (count,), eps=share * _VARIANCE_FLOOR) * share**0.5
    return scaled


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch (..., ph·pw·C), both (..., 1).

    The deviation is the root of the unbiased variance plus 1e-6.
    """
    mean = patches.mean(dim=-1, keepdim=True)
    variance = patches.var(dim=-1, keepdim=True)
    return mean, (variance + _VARIANCE_FLOOR) ** 0.5


def patch_errors(logits: Tensor, patches: Tensor, *, norm_pix_loss: bool) -> Tensor:
    """Mean squared error of each patch, in the units of the loss.

    Args:
        logits: The predictions, (N, L, ph·pw·C).
        patches: The model's input, patchified, (N, L, ph·pw·C).
        norm_pix_loss: Compare with normalised patches.

    Returns:
        (N, L).
    """
    target = normalise_patches(patches) if norm_pix_loss else patches
    return ((logits - target) ** 2).mean(dim=-1)


def reconstruction_loss(logits: Tensor, patches: Tensor, mask: Tensor, *, norm_pix_loss: bool) -> Tensor:
    """The pretraining loss: the mean of `patch_errors` over removed patches.

    Args:
        logits: The predictions, (N, L, ph·pw·C).
        patches: The model's input, patchified, (N, L, ph·pw·C).
        mask: (N, L), 1 = removed.
        norm_pix_loss: Compare with normalised patches.

    Returns:
        A scalar; NaN (0/0) where no patch is removed, for which models return None.
    """
    errors = patch_errors(logits, patches, norm_pix_loss=norm_pix_loss)
    return (errors * mask).sum() / mask.sum()


def classification_loss(logits: Tensor, labels: Tensor, problem_type: str | None = None) -> Tensor:
    """The loss of a classifier or of a regression.

    Args:
        logits: (N, K).
        labels: For "single_label_classification" (N,) integers, for "multi_label_classification" (N, K) in
            [0, 1], for "regression" (N,) or (N, K).
        problem_type: One of those: cross-entropy, binary cross-entropy, squared error. None decides as the
            reference does: regression for one logit, else single labels for integers and multiple labels for
            floats.

    Returns:
        A scalar.

    Raises:
        ConfigError: Another problem type.
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
