"""The optimiser and learning-rate schedule of the MAE recipe (He et al. 2022, appendix A)."""

from __future__ import annotations

import math

import torch
from torch import nn


def warmup_cosine(progress: float, warmup: float) -> float:
    """The learning rate as a share of its peak: a linear rise, then half a cosine down to 0.

    As `util/lr_sched.py` of facebookresearch/mae.

    Args:
        progress: How far the training is, 0 to 1.
        warmup: The share of the training in which the rate rises, in [0, 1).
    """
    if progress < warmup:
        return progress / warmup
    share = min(1.0, (progress - warmup) / (1.0 - warmup))
    return 0.5 * (1.0 + math.cos(math.pi * share))


def training_progress(step: int, total_steps: int, seconds: float, max_seconds: float | None) -> float:
    """How far the training is, 0 to 1: by steps or, where time is limited, by time if that is further.

    Args:
        step: Steps done.
        total_steps: Steps in all.
        seconds: Training time so far.
        max_seconds: The time limit; None for none.
    """
    by_steps = step / total_steps
    by_time = 0.0 if max_seconds is None else seconds / max_seconds
    return min(1.0, max(by_steps, by_time))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group.

    Args:
        optimizer: Its groups may have a "scale", by which their rate is multiplied.
        rate: The learning rate of a group without scale.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)


def adamw(
    model: nn.Module, *, rate: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW without weight decay on norms, biases, and CLS and mask tokens.

    Args:
        model: Its frozen parameters are left out.
        rate: The learning rate.
        betas: Decay of the running means of the gradient and of its square.
        weight_decay: Decoupled weight decay of the other parameters.
    """
    decay: list[nn.Parameter] = []
    no_decay: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_token = name.endswith(("cls_token", "mask_token"))
        (no_decay if parameter.ndim <= 1 or is_token else decay).append(parameter)
    groups = [
        {"params": decay, "weight_decay": weight_decay},
        {"params": no_decay, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True)
