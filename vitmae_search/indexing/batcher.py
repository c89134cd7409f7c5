"""Prepared photos in batches: one is computed in a thread of its own while its caller records the last one
and collects the next.

Running a model on a batch so that one bad row fails alone, and a broken plugin does not fail them all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding import GuardedClassifier, GuardedEmbedder, Prepare, translate_memory_errors
from vitmae_search.errors import DeviceError, VitmaeSearchError

LEAST_BATCH = 32
_LARGEST_BATCH = 128
_BATCH_BYTES = 1 << 21
"""Of prepared pixels: 32 photos of 148 × 148, or 128 of 74 × 74."""
_MOST_BYTES = 1 << 27
"""Of prepared pixels, where the plugin names the size. A run holds up to four batches of them: being read,
collected, embedded, and given back."""

Outcome = NDArray[np.float32] | VitmaeSearchError
Run = Callable[[NDArray[Any]], NDArray[np.float32]]
"""A batch of prepared images, (N, ...), to a row for each, (N, D)."""


def embed_rows(embedder: GuardedEmbedder, rows: Sequence[NDArray[Any]]) -> list[Outcome]:
    """For each prepared image its (D,) vector, or the error that it alone gives; see `rows_alone`."""
    return rows_alone(embedder.embed, rows)


def batch_size_for(opened: GuardedEmbedder | GuardedClassifier) -> int:
    """How many photos a batch has where nobody said: what the plugin says, as far as memory goes.

    Else 32, and more of small ones, whose calls cost too much. Larger ones would lose more work when a run
    is killed.
    """
    each = math.prod(opened.shape) * opened.dtype.itemsize
    if opened.batch_size is not None:
        return max(1, min(opened.batch_size, _MOST_BYTES // each))
    return max(LEAST_BATCH, min(_LARGEST_BATCH, _BATCH_BYTES // each))


def still_works(embedder: GuardedEmbedder) -> bool:
    """Whether the embedder can embed an ordinary image; if not, no photo is to blame."""
    return works(embedder.prepare, embedder.embed)


def rows_alone(run: Run, rows: Sequence[NDArray[Any]] | NDArray[Any]) -> list[Outcome]:
    """For each prepared image its row of what `run` gives, or the error that it alone gives.

    A batch that fails is tried again row by row; one that does not fit into memory, in halves. Raises
    `DeviceError` where not even one row fits, or where the device is lost: then no row is to blame.
    """
    if len(rows) == 0:
        return []
    try:
        return list(run(rows if isinstance(rows, np.ndarray) else np.stack(rows)))
    except MemoryError:
        if len(rows) == 1:
            with translate_memory_errors("look at a single photo"):
                raise
        size = -(-len(rows) // 2)
    except DeviceError:
        raise
    except VitmaeSearchError as error:
        if len(rows) == 1:
            return [error]
        size = 1
    # Only now: the error held what the plugin had in memory.
    return [outcome for n in range(0, len(rows), size) for outcome in rows_alone(run, rows[n : n + size])]


def works(prepare: Prepare, run: Run) -> bool:
    """Whether an ordinary image goes through. Raises `DeviceError`."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((256, 192), Image.Resampling.BICUBIC)
    try:
        run(prepare(image)[None])
    except DeviceError:
        raise
    except (VitmaeSearchError, MemoryError):
        return False
    return True


T = TypeVar("T")

_LIGHT = 256
"""Photos without pixels (copies, moves, failures) that may wait for a batch to fill."""
_PATIENCE = 5.0
"""Seconds that a batch may take to fill: where reading is slow, a kill would lose much of a large one. It is
recorded when the next one is begun, after as long again at most."""


@dataclass(slots=True)
class _Batch(Generic[T]):
    """`rows` is the array that it fills, (size, ...); `numbers` says to which of `items` each row belongs."""

    rows: NDArray[Any]
    items: list[T] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    broken: list[VitmaeSearchError] = field(default_factory=list)
    since: float = 0.0

    def with_outcomes(self, outcomes: Sequence[Outcome]) -> Iterator[tuple[T, Outcome | None]]:
        by_number = dict(zip(self.numbers, outcomes, strict=True))
        return ((item, by_number.get(number)) for number, item in enumerate(self.items))


class Batches(Generic[T]):
    """Batches of `size` prepared photos through `run`, at most one at a time, in the order of `add`.

    Called by one thread. Use `closing`: it waits for the batch that is being computed, which is lost then.
    """

    def __init__(
        self,
        opened: GuardedEmbedder | GuardedClassifier,
        run: Run,
        size: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.size = size
        self._clock = clock
        self._prepare, self._run = opened.prepare, run
        # Two arrays take turns: filling the same memory again is several times as fast as new memory.
        self._spare = [np.empty((size, *opened.shape), opened.dtype) for _ in range(2)]
        self._collected = _Batch[T](self._spare.pop())
        self._begun: tuple[_Batch[T], Future[list[Outcome]]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")

    @property
    def waiting(self) -> int:
        """How many items `turn` is still to return."""
        return len(self._collected.items) + (0 if self._begun is None else len(self._begun[0].items))

    @property
    def due(self) -> bool:
        """Whether it is time for a `turn`: the batch is full, or its first item has waited long enough."""
        collected = self._collected
        full = len(collected.numbers) >= self.size or len(collected.items) >= self.size + _LIGHT
        return full or (bool(collected.items) and self._clock() - collected.since >= _PATIENCE)

    def add(
        self, item: T, pixels: NDArray[Any] | None = None, broken: VitmaeSearchError | None = None
    ) -> None:
        """Collect an item with what `prepare` gave, which is copied, or with the plugin's error."""
        batch = self._collected
        if not batch.items:
            batch.since = self._clock()
        if pixels is not None:
            batch.rows[len(batch.numbers)] = pixels
            batch.numbers.append(len(batch.items))
        if broken is not None:
            batch.broken.append(broken)
        batch.items.append(item)

    def turn(self) -> list[tuple[T, Outcome | None]]:
        """Wait for the batch that is being computed, begin with what was collected, and return the former.

        Each item with what came of its pixels. Raises what `rows_alone` raises, and the plugin's error where
        not one photo of the batch came through and an ordinary image does not either; nothing is begun then.
        """
        done = self.finish()
        if self._collected.items:
            batch = self._collected
            self._begun = batch, self._thread.submit(self._compute, batch)
            self._collected = _Batch(self._spare.pop())
        return done

    def finish(self) -> list[tuple[T, Outcome | None]]:
        """As `turn`, and begin with nothing."""
        if self._begun is None:
            return []
        batch, computing = self._begun
        outcomes = computing.result()
        self._begun = None
        self._spare.append(batch.rows)
        return list(batch.with_outcomes(outcomes))

    def close(self) -> None:
        """Wait for what is being computed, and end the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _compute(self, batch: _Batch[T]) -> list[Outcome]:
        outcomes = rows_alone(self._run, batch.rows[: len(batch.numbers)])
        failed = [outcome for outcome in outcomes if isinstance(outcome, VitmaeSearchError)]
        broken = batch.broken + failed
        if broken and len(failed) == len(outcomes) and not works(self._prepare, self._run):
            raise broken[0]
        return outcomes
