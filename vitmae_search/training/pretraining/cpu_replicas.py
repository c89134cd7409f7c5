"""Data-parallel threads on a CPU: each computes part of a batch on a core of its own.

On a CPU that other programs use as well, this is faster than threads within each operation. Those wait for
the slowest one thousands of times a step, these once or twice.
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


class CPUReplicas(Generic[M]):
    """Models that share their weights and have gradients of their own.

    Args:
        model: The first replica, which the optimiser steps. The others see its new weights at once.
        count: How many replicas.
    """

    def __init__(self, model: M, count: int) -> None:
        self._models = [model] + [_copy_sharing_weights(model) for _ in range(count - 1)]
        self._pool: ThreadPoolExecutor | None = None
        if count > 1:
            self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))

    def __len__(self) -> int:
        return len(self._models)

    def map(self, work: Callable[[M, int], R], count: int) -> list[R]:
        """Call `work` for each number below `count`, in parallel.

        Args:
            work: Takes a replica and the number.
            count: How many calls; replica i makes those of i, i + len(self), ….

        Returns:
            The results in the order of the numbers.
        """
        if self._pool is None:
            return [work(self._models[0], i) for i in range(count)]
        stride = len(self)

        def run_replica(first: int) -> list[R]:
            return [work(self._models[first], i) for i in range(first, count, stride)]

        results = list(self._pool.map(run_replica, range(stride)))
        return [results[i % stride][i // stride] for i in range(count)]

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the first replica."""
        return self._models[0].parameters()

    def zero_grad(self) -> None:
        """Clear the gradients of all replicas."""
        for model in self._models:
            model.zero_grad(set_to_none=True)

    def sum_gradients(self) -> None:
        """Add the gradients of the other replicas to those of the first."""
        for parameters in zip(*(model.parameters() for model in self._models), strict=True):
            _add_gradients(parameters)

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def check_replicas(options: PretrainOptions, config: ViTMAEConfig, device: torch.device) -> None:
    """Check that several replicas would train as one model does.

    Args:
        options: The run's options.
        config: The model's configuration.
        device: The device that trains.

    Raises:
        ConfigError: Several replicas on a GPU, of a compiled model, or with dropout.
    """
    count = options.replicas
    if count > 1 and device.type != "cpu":
        raise ConfigError("replicas", count, f"must be 1 on {device.type}")
    if count > 1 and options.compiled:
        raise ConfigError("replicas", count, "must be 1 for a compiled model: compiling is not thread-safe")
    if count > 1 and (config.hidden_dropout_prob or config.attention_probs_dropout_prob):
        raise ConfigError("replicas", count, "must be 1 with dropout: threads would share its random numbers")


def _copy_sharing_weights(model: M) -> M:
    replica = copy.deepcopy(model)
    for shared, own in zip(model.parameters(), replica.parameters(), strict=True):
        own.data = shared.data
    return replica


def _add_gradients(parameters: Sequence[nn.Parameter]) -> None:
    first, *others = parameters
    for other in others:
        if first.grad is not None and other.grad is not None:
            first.grad += other.grad
