"""The learning rate and the parameter groups of the recipe."""

from __future__ import annotations

import math

import torch
from torch import nn


def rate_factor(progress: float, warmup: float) -> float:
    """The share of the peak rate at `progress` (0 to 1): a linear rise, then half a cosine down to 0.

    After facebookresearch/mae `util/lr_sched.py`, with the warm-up as a share of the training.
    """
    if progress < warmup:
        return progress / warmup
    share = min(1.0, (progress - warmup) / (1.0 - warmup))
    return 0.5 * (1.0 + math.cos(math.pi * share))


def progress_at(step: int, total_steps: int, seconds: float, max_seconds: float | None) -> float:
    """How far the training is, 0 to 1: by steps or, where time is limited, by time if that is further."""
    by_steps = step / total_steps
    by_time = 0.0 if max_seconds is None else seconds / max_seconds
    return min(1.0, max(by_steps, by_time))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """`rate` for every group, times the group's own "scale" where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)


def adamw(
    model: nn.Module, *, rate: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW whose decay leaves out norms, biases and tokens; frozen parameters are left out altogether."""
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_token = name.endswith(("cls_token", "mask_token"))
        (spared if parameter.ndim <= 1 or is_token else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True)
