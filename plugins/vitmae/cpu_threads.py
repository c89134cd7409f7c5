"""Which split of a CPU's cores is the fastest: tried on the first batches of real work, then remembered.

Threads that share a CPU's cores: each computes on its part of a batch with some of them.
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

from .devices import remember_precision

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


log = logging.getLogger(__name__)

SPLITS_NAME = "cpu-splits.json"
_ROUNDS = 3
_CLOSE = 1.15
"""The first way within this of the fastest is chosen: decoding beside it disturbs only the others."""

_VALUES = 614_400
"""Of one layer's output in a part of a batch, 2.4 MB. Twice that was no faster, and sometimes slower."""


def candidates(cores: int) -> list[Split]:
    """Workers of one thread first: they suffer least where something else runs, as decoding does."""
    threads = sorted({min(number, cores) for number in (1, 2, 4, cores)})
    return [Split(cores // number, number) for number in threads]


class SplitWork:
    """Runs batches on a CPU, split in the way that has been the fastest for such a model on this machine.

    Where none is remembered, the first batches that are large enough are computed in the one way and in the
    other, taking turns. Nothing is computed twice, and a single photo never takes part. `size` is (height,
    width) of the images, in pixels. Where `only` is given, that way is taken, and none is tried.
    """

    def __init__(
        self,
        size: tuple[int, int],
        config: ViTMAEConfig | ViTConfig,
        precision: str,
        only: Split | None = None,
    ) -> None:
        self._cores = torch.get_num_threads()
        (height, width), (ph, pw) = size, config.patch_shape
        tokens = 1 + (height // ph) * (width // pw)
        self._values = tokens * config.hidden_size
        shape = (tokens, config.hidden_size, config.intermediate_size)
        self._key = machine_key(torch.__version__, self._cores, precision, shape)
        self._ways = [only] if only else candidates(self._cores)
        known = None if only else load_cached(SPLITS_NAME).get(self._key)
        if known in [list(way) for way in self._ways]:
            self._ways = [Split(*known)]
        self._seconds: dict[Split, list[float]] = defaultdict(list)
        self._open: dict[Split, Workers] = {}

    @property
    def chosen(self) -> Split | None:
        """None while it is being tried."""
        return self._ways[0] if len(self._ways) == 1 else None

    def run(self, work: Work, batch: Rows) -> NDArray[np.float32]:
        """`work` on the parts of the batch, (N, ...) to (N, D), by one caller at a time."""
        trial = self.chosen is None and len(batch) >= 2 * self._cores
        way = self._least_tried() if trial else self._ways[0]
        parts = self._parts_of(batch, way)
        if len(parts) == 1 and not trial:
            return work(batch)  # starts no thread
        if way not in self._open:
            self._open[way] = Workers(way)
        started = time.perf_counter()
        vectors = self._open[way].run(work, parts)
        if trial:
            self._note(way, (time.perf_counter() - started) / len(batch))
        return vectors

    def close(self) -> None:
        for workers in self._open.values():
            workers.close()
        self._open.clear()

    def _parts_of(self, batch: Rows, way: Split) -> list[Rows]:
        """As many for each worker, so that none waits for another. The batch itself where it is small."""
        if len(batch) < way.workers:
            return [batch]
        wanted = math.ceil(len(batch) * self._values / _VALUES)
        count = min(len(batch), way.workers * math.ceil(wanted / way.workers))
        return np.array_split(batch, count)

    def _least_tried(self) -> Split:
        return min(self._ways, key=lambda way: len(self._seconds[way]))

    def _note(self, way: Split, seconds: float) -> None:
        """The first time of each way is its warm-up."""
        self._seconds[way].append(seconds)
        if any(len(self._seconds[one]) <= _ROUNDS for one in self._ways):
            return
        medians = {one: statistics.median(self._seconds[one][1:]) for one in self._ways}
        least = min(medians.values())
        best = next(way for way in self._ways if medians[way] <= _CLOSE * least)
        log.info("%d workers of %d threads encode best here", *best)
        save_cached(SPLITS_NAME, self._key, list(best), "how to share the cores")
        remember_precision()
        for one in set(self._open) - {best}:
            self._open.pop(one).close()
        self._ways = [best]
