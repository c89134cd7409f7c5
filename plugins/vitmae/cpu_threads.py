"""Threads that compute the parts of a batch, one on each core of a CPU."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Rows = NDArray[Any]
Work = Callable[[Rows], NDArray[np.float32]]
"""(n, ...) to (n, D) for any n; called by several threads at a time."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in the calling thread alone, such as while hundreds of small tensors are converted.

    With all threads each of them takes milliseconds on a busy machine, in which the threads wait for each
    other. A thread whose first use of torch falls into this time keeps one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class WorkerPool:
    """Computes the parts of batches in parallel, with one torch thread each. All share the weights.

    Other load slows down threads that work alone least: none waits for another in each product.

    Args:
        workers: How many threads.
        part: Rows that a worker computes at a time, at most.
    """

    def __init__(self, workers: int, part: int) -> None:
        self._workers, self._part = workers, part
        self._pool: ThreadPoolExecutor | None = None

    def run(self, work: Work, batch: Rows) -> NDArray[np.float32]:
        """Compute a batch.

        A batch of fewer rows than workers is one part, which the calling thread computes.

        Args:
            work: Computes one part; what it raises is raised once no part is being computed.
            batch: (N, ...).

        Returns:
            (N, D), in order.
        """
        if self._workers == 1 or len(batch) < self._workers:
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
    """Start threads of one torch thread each.

    With OpenMP each thread has its own number, and new threads start with the number that any thread set
    last; MKL has one number for all. So the caller's number is set again after each worker has set its own.
    """
    before = torch.get_num_threads()
    started = threading.Barrier(workers + 1)

    def start() -> None:
        torch.get_num_threads()  # sets this thread's default now: at its first operation would be too late
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(workers, thread_name_prefix="encoder", initializer=start)
    for _ in range(workers):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(before)
    return pool
