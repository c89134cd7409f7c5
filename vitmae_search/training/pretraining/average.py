"""The running mean of a model's weights, which is what a run with `ema` saves."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class Average(Generic[M]):
    """An exponential moving average (EMA) of the parameters of `model`, as a model of its own.

    After update t = 0, 1, … the old average counts min(decay, (1 + t) / (10 + t)), so that the weights of
    the beginning are soon forgotten, as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: M, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: M, updates: int) -> None:
        """`updates` came before this one."""
        new = 1 - min(self._decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), new)
