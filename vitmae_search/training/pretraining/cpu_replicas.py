"""Several threads share a batch, each with a part of it and a core of its own.

On a CPU that others use, too, this beats threads within each operation: those wait for the slowest one
thousands of times a step, these once or twice.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import torch
from torch import nn

from vitmae_search.errors import ConfigError
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.vitmae import ViTMAEConfig

M = TypeVar("M", bound=nn.Module)
R = TypeVar("R")


class Replicas(Generic[M]):
    """`count` models that share one set of weights and have gradients of their own.

    The first is `model` itself, which the optimiser steps; the others see its new weights at once.
    """

    def __init__(self, model: M, count: int) -> None:
        self._models = [model] + [_sharing(model) for _ in range(count - 1)]
        self._pool: ThreadPoolExecutor | None = None
        if count > 1:
            self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))

    def __len__(self) -> int:
        return len(self._models)

    def each(self, work: Callable[[M, int], R], count: int) -> list[R]:
        """What `work` makes of a model and each number below `count`, which the models share in turn."""
        if self._pool is None:
            return [work(self._models[0], i) for i in range(count)]
        stride = len(self)

        def turns(first: int) -> list[R]:
            return [work(self._models[first], i) for i in range(first, count, stride)]

        done = list(self._pool.map(turns, range(stride)))
        return [done[i % stride][i // stride] for i in range(count)]

    def parameters(self) -> Iterator[nn.Parameter]:
        """Those of the first."""
        return self._models[0].parameters()

    def clear_gradients(self) -> None:
        for model in self._models:
            model.zero_grad(set_to_none=True)

    def add_gradients(self) -> None:
        """Leave the sum of all gradients in the first model."""
        for parameters in zip(*(model.parameters() for model in self._models), strict=True):
            _add_gradients(parameters)

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


def _sharing(model: M) -> M:
    twin = copy.deepcopy(model)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        theirs.data = ours.data
    return twin


def _add_gradients(parameters: Sequence[nn.Parameter]) -> None:
    first, *others = parameters
    for other in others:
        if first.grad is not None and other.grad is not None:
            first.grad += other.grad
