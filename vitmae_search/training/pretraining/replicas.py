"""Gradients of one batch by several threads, each with a part of it and a core of its own.

On a CPU that others use, too, this beats threads within each operation: those wait for the slowest one
thousands of times a step, these once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from vitmae_search.errors import ConfigError
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.vitmae import ViTMAEConfig

LossOf = Callable[[nn.Module, int], Tensor]
"""The loss of part i of the batch under a model; the parts' losses add up to the batch's."""


class Replicas:
    """`count` models that share one set of weights and have gradients of their own.

    The first is `model` itself, which the optimiser steps; the others see its new weights at once.
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        self._models = [model] + [_sharing(model) for _ in range(count - 1)]
        self._pool: ThreadPoolExecutor | None = None
        if count > 1:
            self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))

    def __len__(self) -> int:
        return len(self._models)

    def backward(self, loss_of: LossOf) -> float:
        """Leave the batch's gradient in the first model, and return the batch's loss."""
        for model in self._models:
            model.zero_grad(set_to_none=True)
        if self._pool is None:
            return _backward(self._models[0], 0, loss_of)
        parts = range(len(self._models))
        losses = list(self._pool.map(lambda i: _backward(self._models[i], i, loss_of), parts))
        for parameters in zip(*(model.parameters() for model in self._models), strict=True):
            _add_gradients(parameters)
        return sum(losses)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


def check_replicas(options: PretrainOptions, config: ViTMAEConfig, device: torch.device) -> None:
    """Raises `ConfigError` where several replicas would not train as one model does."""
    count = options.replicas
    if count > 1 and device.type != "cpu":
        raise ConfigError("replicas", count, f"must be 1 on {device.type}")
    if count > 1 and options.compiled:
        raise ConfigError("replicas", count, "must be 1 for a compiled model: compiling is not thread-safe")
    if count > 1 and (config.hidden_dropout_prob or config.attention_probs_dropout_prob):
        raise ConfigError("replicas", count, "must be 1 with dropout: threads would share its random numbers")


def _sharing(model: nn.Module) -> nn.Module:
    twin = copy.deepcopy(model)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        theirs.data = ours.data
    return twin


def _backward(model: nn.Module, part: int, loss_of: LossOf) -> float:
    loss = loss_of(model, part)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def _add_gradients(parameters: Sequence[nn.Parameter]) -> None:
    first, *others = parameters
    for other in others:
        if first.grad is not None and other.grad is not None:
            first.grad += other.grad
