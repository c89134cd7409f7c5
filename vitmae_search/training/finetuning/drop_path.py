"""Stochastic depth (Huang et al. 2016): whole residual branches are left out, photo by photo."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vitmae_search.vitmae import ViTModel


def drop_path(branch: Tensor, rate: float) -> Tensor:
    """Each photo's branch (N, ...) is zero with probability `rate`, else divided by 1 - rate.

    So its expectation is the branch. Draws from torch's own generator.
    """
    shape = (len(branch),) + (1,) * (branch.ndim - 1)
    kept = torch.rand(shape, device=branch.device) >= rate
    return branch * kept.to(branch.dtype) / (1 - rate)


def add_drop_path(encoder: ViTModel, greatest: float) -> None:
    """In training, drop both branches of each layer: rates rise evenly from 0 to `greatest`, as in timm.

    As hooks on what makes the branches, so that the weights keep their names.
    """
    layers = encoder.encoder.layer
    rates = torch.linspace(0, greatest, len(layers)).tolist()
    for layer, rate in zip(layers, rates, strict=True):
        if rate > 0:
            layer.get_submodule("attention").register_forward_hook(_Attended(rate))
            layer.get_submodule("output").register_forward_hook(_Mapped(rate))


class _Mapped:
    def __init__(self, rate: float) -> None:
        self._rate = rate

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return drop_path(output, self._rate) if module.training else output


class _Attended:
    """As `_Mapped`, for a module that returns attention weights, too."""

    def __init__(self, rate: float) -> None:
        self._rate = rate

    def __call__(
        self, module: nn.Module, args: Any, output: tuple[Tensor, Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        return (drop_path(output[0], self._rate), output[1]) if module.training else output
