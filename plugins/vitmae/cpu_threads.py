"""Threads that compute the parts of a batch, one on each core of a CPU."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Rows = NDArray[Any]
Work = Callable[[Rows], NDArray[np.float32]]
"""(n, ...) to (n, D) for any n; called by several threads at a time."""

SMALL_MODEL = 20_000_000
"""Numbers in the weights. A model of fewer computes a photo in one thread: several would wait for each other
at each of its many short products, for milliseconds where the machine has other work."""

_setting = threading.Lock()


def is_small(model: nn.Module) -> bool:
    """Whether a photo is computed in one thread; see `SMALL_MODEL`."""
    return sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers())) < SMALL_MODEL


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in the calling thread alone, such as while hundreds of small tensors are converted.

    With all threads each of them takes milliseconds on a busy machine, in which the threads wait for each
    other. Other threads keep their number, and any of them may do the same meanwhile.
    """
    before = torch.get_num_threads()
    _set_own_threads(1)
    try:
        yield
    finally:
        _set_own_threads(before)


def _set_own_threads(threads: int) -> None:
    """Set with how many threads torch computes for the calling thread, and for no other.

    Each thread has its own number. Torch lets threads that first use it later begin with the number that any
    thread set last, so another thread sets that again.
    """
    torch.get_num_threads()  # the calling thread takes its first number now: later it would replace this one
    with _setting, ThreadPoolExecutor(1) as new_thread:
        begin_with = new_thread.submit(torch.get_num_threads).result()
        torch.set_num_threads(threads)
        new_thread.submit(torch.set_num_threads, begin_with).result()


class WorkerPool:
    """Computes the parts of batches in parallel, with one torch thread each. All share the weights.

    Other load slows down threads that work alone least: none waits for another in each product.

    Args:
        workers: How many threads.
        part: Rows that a worker computes at a time, at most.
        small: Whether the model is small (`is_small`).
    """

    def __init__(self, workers: int, part: int, *, small: bool = False) -> None:
        self._workers, self._part, self._small = workers, part, small
        self._pool: ThreadPoolExecutor | None = None

    def run(self, work: Work, batch: Rows) -> NDArray[np.float32]:
        """Compute a batch.

        A batch of fewer rows than workers is one part, which the calling thread computes with all of torch's
        threads. Of a small model only a single row is, with one thread.

        Args:
            work: Computes one part; what it raises is raised once no part is being computed.
            batch: (N, ...).

        Returns:
            (N, D), in order.
        """
        if self._workers == 1 or len(batch) < (2 if self._small else self._workers):
            with one_thread() if self._small and self._workers > 1 else nullcontext():
                return work(batch) if len(batch) <= self._part else self._in_turn(work, batch)
        if self._pool is None:
            self._pool = _start_threads(self._workers)
        futures = [self._pool.submit(work, part) for part in self._split(batch)]
        try:
            return np.concatenate([future.result() for future in futures])
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """Stop the threads after the parts that they are computing."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _in_turn(self, work: Work, batch: Rows) -> NDArray[np.float32]:
        return np.concatenate([work(part) for part in self._split(batch)])

    def _split(self, batch: Rows) -> list[Rows]:
        """Equally many parts for each worker."""
        rounds = math.ceil(len(batch) / (self._workers * self._part))
        return np.array_split(batch, min(len(batch), self._workers * rounds))


def _start_threads(workers: int) -> ThreadPoolExecutor:
    """Start threads of one torch thread each."""
    started = threading.Barrier(workers + 1)

    def start() -> None:
        _set_own_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(workers, thread_name_prefix="encoder", initializer=start)
    for _ in range(workers):
        pool.submit(int)
    started.wait()
    return pool
