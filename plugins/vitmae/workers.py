"""Threads that share a CPU's cores: each computes on its part of a batch with some of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Rows = NDArray[Any]
Work = Callable[[Rows], NDArray[np.float32]]
"""(n, ...) to (n, D), whatever n; called by many threads at a time."""


class Split(NamedTuple):
    """How many parts of a batch are computed at a time, and with how many threads each."""

    workers: int
    threads: int


class Workers:
    """Computes batches as its split says. Weights are in memory once, whatever the number of workers.

    With one worker that is the calling thread, and its threads are those that torch gives it.
    """

    def __init__(self, split: Split) -> None:
        self.split = split
        self._pool = _pool_of(split) if split.workers > 1 else None

    def run(self, work: Work, parts: Sequence[Rows]) -> NDArray[np.float32]:
        """The rows of all parts, in order. Raises what `work` raises, when no part is being worked on."""
        if self._pool is None or len(parts) == 1:
            return np.concatenate([work(part) for part in parts])
        futures = [self._pool.submit(work, part) for part in parts]
        try:
            return np.concatenate([future.result() for future in futures])
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """Waits for what is being worked on."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _pool_of(split: Split) -> ThreadPoolExecutor:
    """With OpenMP the number of threads belongs to the thread that sets it.

    New threads begin with the number that was set last, by whichever thread, and MKL has one number for all.
    So the caller's own is set again when each worker has set its.
    """
    before = torch.get_num_threads()
    started = threading.Barrier(split.workers + 1)

    def start() -> None:
        torch.get_num_threads()
        torch.set_num_threads(split.threads)
        started.wait()

    pool = ThreadPoolExecutor(split.workers, thread_name_prefix="encoder", initializer=start)
    for _ in range(split.workers):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(before)
    return pool
