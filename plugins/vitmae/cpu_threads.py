"""How a batch is spread over a CPU's cores: worker threads that compute parts of it, each with some cores.

The fastest layout is measured on the first batches of real work, and remembered for the machine.
"""

from __future__ import annotations

import logging
import math
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vitmae_search.measurement_cache import load_cached, machine_key, save_cached
from vitmae_search.vitmae import ViTConfig, ViTMAEConfig

from .devices import measure_precision

log = logging.getLogger(__name__)

Rows = NDArray[Any]
Work = Callable[[Rows], NDArray[np.float32]]
"""(n, ...) to (n, D) for any n; called by several threads at a time."""


class ThreadLayout(NamedTuple):
    """Worker threads, each of which computes part of a batch with some torch threads."""

    workers: int
    threads: int


class WorkerPool:
    """Computes the parts of batches in parallel. All workers share one copy of the weights.

    A single worker is the calling thread, with the number of torch threads that it has.

    Args:
        layout: How many workers, with how many torch threads each.
    """

    def __init__(self, layout: ThreadLayout) -> None:
        self.layout = layout
        self._pool = _start_threads(layout) if layout.workers > 1 else None

    def run(self, work: Work, parts: Sequence[Rows]) -> NDArray[np.float32]:
        """Compute all parts.

        Args:
            work: Computes one part; what it raises is raised once no part is being computed.
            parts: The batch.

        Returns:
            (N, D), the rows of all parts in order.
        """
        if self._pool is None or len(parts) == 1:
            return np.concatenate([work(part) for part in parts])
        futures = [self._pool.submit(work, part) for part in parts]
        try:
            return np.concatenate([future.result() for future in futures])
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """Stop the threads after the parts that they are computing."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _start_threads(layout: ThreadLayout) -> ThreadPoolExecutor:
    """Start the workers, each with its number of torch threads.

    With OpenMP each thread has its own number, and new threads start with the number that any thread set
    last; MKL has one number for all. So the caller's number is set again after each worker has set its own.
    """
    before = torch.get_num_threads()
    started = threading.Barrier(layout.workers + 1)

    def start() -> None:
        torch.get_num_threads()  # sets this thread's default now: at its first operation would be too late
        torch.set_num_threads(layout.threads)
        started.wait()

    pool = ThreadPoolExecutor(layout.workers, thread_name_prefix="encoder", initializer=start)
    for _ in range(layout.workers):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(before)
    return pool


LAYOUTS_NAME = "cpu-layouts.json"
_ROUNDS = 3
"""Batches timed with each layout, after one to warm up."""
_TOLERANCE = 1.15
"""The first layout within this factor of the fastest is chosen, since decoding slows down the later ones."""

_VALUES_PER_PART = 614_400
"""Values of one layer's output in a part of a batch, 2.4 MB. Twice that was no faster, sometimes slower."""


def candidate_layouts(cores: int) -> list[ThreadLayout]:
    """The layouts to try. Workers of one thread come first: other load slows them down least."""
    threads = sorted({min(number, cores) for number in (1, 2, 4, cores)})
    return [ThreadLayout(cores // number, number) for number in threads]


class LayoutTuner:
    """Computes batches on a CPU in the layout that is the fastest for this model on this machine.

    If none is known, the first large batches are computed in the candidate layouts by turns. Nothing is
    computed twice, and single photos are not timed.

    Args:
        size: (height, width) of the images, in pixels.
        config: The model's configuration.
        precision: "bf16" or "fp32".
        fixed_layout: Use this layout without trying others.
    """

    def __init__(
        self,
        size: tuple[int, int],
        config: ViTMAEConfig | ViTConfig,
        precision: str,
        fixed_layout: ThreadLayout | None = None,
    ) -> None:
        self._cores = torch.get_num_threads()
        (height, width), (ph, pw) = size, config.patch_shape
        tokens = 1 + (height // ph) * (width // pw)
        self._values = tokens * config.hidden_size
        shape = (tokens, config.hidden_size, config.intermediate_size)
        self._key = machine_key(torch.__version__, self._cores, precision, shape)
        self._candidates = [fixed_layout] if fixed_layout else candidate_layouts(self._cores)
        known = None if fixed_layout else load_cached(LAYOUTS_NAME).get(self._key)
        if known in [list(layout) for layout in self._candidates]:
            self._candidates = [ThreadLayout(*known)]
        self._seconds: dict[ThreadLayout, list[float]] = defaultdict(list)
        self._pools: dict[ThreadLayout, WorkerPool] = {}

    @property
    def chosen(self) -> ThreadLayout | None:
        """The layout, or None while the candidates are being timed."""
        return self._candidates[0] if len(self._candidates) == 1 else None

    def run(self, work: Work, batch: Rows) -> NDArray[np.float32]:
        """Compute a batch; for one caller at a time.

        Args:
            work: Computes part of a batch.
            batch: (N, ...).

        Returns:
            (N, D).
        """
        trial = self.chosen is None and len(batch) >= 2 * self._cores
        layout = self._least_timed() if trial else self._candidates[0]
        parts = self._split(batch, layout)
        if len(parts) == 1 and not trial:
            return work(batch)  # starts no thread
        if layout not in self._pools:
            self._pools[layout] = WorkerPool(layout)
        started = time.perf_counter()
        vectors = self._pools[layout].run(work, parts)
        if trial:
            self._record_time(layout, (time.perf_counter() - started) / len(batch))
        return vectors

    def close(self) -> None:
        """Stop all threads."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def _split(self, batch: Rows, layout: ThreadLayout) -> list[Rows]:
        """Equally many parts for each worker; one part if the batch has fewer rows than there are workers."""
        if len(batch) < layout.workers:
            return [batch]
        wanted = math.ceil(len(batch) * self._values / _VALUES_PER_PART)
        count = min(len(batch), layout.workers * math.ceil(wanted / layout.workers))
        return np.array_split(batch, count)

    def _least_timed(self) -> ThreadLayout:
        return min(self._candidates, key=lambda layout: len(self._seconds[layout]))

    def _record_time(self, layout: ThreadLayout, seconds: float) -> None:
        """Record the time of a batch, and choose a layout once all were timed often enough."""
        self._seconds[layout].append(seconds)
        if any(len(self._seconds[one]) <= _ROUNDS for one in self._candidates):
            return
        # The first time of each layout is its warm-up.
        medians = {one: statistics.median(self._seconds[one][1:]) for one in self._candidates}
        least = min(medians.values())
        best = next(one for one in self._candidates if medians[one] <= _TOLERANCE * least)
        log.info("%d workers of %d threads encode best here", *best)
        save_cached(LAYOUTS_NAME, self._key, list(best), "how to share the cores")
        measure_precision()
        for other in set(self._pools) - {best}:
            self._pools.pop(other).close()
        self._candidates = [best]
