"""Collect prepared photos, and run a model on them in batches, in a thread of its own.

`index`, `classify`, `evaluate` and `adapt` all embed with `Batcher`: one batch is computed while its caller
handles the last one and collects the next. A failing photo does not affect the others. If the plugin itself
is broken, the run ends and no photo is blamed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding import GuardedClassifier, GuardedEmbedder, Prepare, translate_memory_errors
from vitmae_search.errors import DeviceError, VitmaeSearchError

DEFAULT_BATCH_SIZE = 32
_MAX_DEFAULT_BATCH_SIZE = 128
_DEFAULT_BATCH_BYTES = 1 << 21
"""Prepared pixels of a default batch: 32 photos of 148 × 148, or 128 of 74 × 74."""
_MAX_BATCH_BYTES = 1 << 27
"""Most prepared pixels, where the plugin gives the size. A run holds up to four batches of them: being read,
collected, embedded, and given back."""

_MAX_WITHOUT_PIXELS = 256
"""Most items without pixels (copies, moves, failures) that wait for a batch to fill."""
_MAX_WAIT = 5.0
"""Seconds that a batch waits at most to fill, so that a kill loses little where reading is slow. It is
recorded when the next batch starts, which waits at most as long."""

RunBatch = Callable[[NDArray[Any]], NDArray[np.float32]]
"""From a batch of prepared images, (N, ...), to a row for each, (N, D)."""
Outcome = NDArray[np.float32] | VitmaeSearchError
"""What comes of one prepared image: its row (D,), or its error."""

T = TypeVar("T")


def batch_size_for(opened: GuardedEmbedder | GuardedClassifier) -> int:
    """Return how many photos a batch has by default.

    That is what the plugin says, as far as memory goes; else 32, and more for small images, for which a call
    costs much. Larger batches would lose more work when a run is killed.
    """
    image_bytes = math.prod(opened.shape) * opened.dtype.itemsize
    if opened.batch_size is not None:
        return max(1, min(opened.batch_size, _MAX_BATCH_BYTES // image_bytes))
    return max(DEFAULT_BATCH_SIZE, min(_MAX_DEFAULT_BATCH_SIZE, _DEFAULT_BATCH_BYTES // image_bytes))


@dataclass(slots=True)
class _Batch(Generic[T]):
    """Items, and the pixels of those that have any.

    Attributes:
        items: In the order of `add`.
        pixels: Array that the batch fills, (size, ...); None before the first pixels.
        positions: For each filled row of `pixels`, the position of its item in `items`.
        errors: The plugin's errors in preparing items of this batch.
        started: Time of the first item.
    """

    items: list[T] = field(default_factory=list)
    pixels: NDArray[Any] | None = None
    positions: list[int] = field(default_factory=list)
    errors: list[VitmaeSearchError] = field(default_factory=list)
    started: float = 0.0

    def with_outcomes(self, outcomes: Sequence[Outcome]) -> Iterator[tuple[T, Outcome | None]]:
        by_position = dict(zip(self.positions, outcomes, strict=True))
        return ((item, by_position.get(position)) for position, item in enumerate(self.items))


class Batcher(Generic[T]):
    """Runs a model on batches of prepared photos: one batch at a time, in the order of `add`.

    Call it from one thread. `close` waits for the batch that is being computed, and drops it.
    """

    def __init__(
        self,
        prepare: Prepare,
        run: RunBatch,
        size: int,
        *,
        max_wait: float | None = None,
        executor: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with an empty batch.

        Args:
            prepare: The plugin's, to check that the model works where a whole batch fails.
            run: The model; see `run_with_fallback`.
            size: Prepared photos in a batch.
            max_wait: Seconds until a batch that is not full is due as well; None is 5.
            executor: Where batches are computed; None is a thread of its own. With several batchers on
                one thread, one model runs at a time.
            clock: Gives the time in seconds.
        """
        self.size = size
        self._prepare, self._run = prepare, run
        self._max_wait, self._clock = max_wait, clock
        self._own_thread = ThreadPoolExecutor(1, thread_name_prefix="batcher") if executor is None else None
        self._executor = executor or self._own_thread
        self._collected = _Batch[T]()
        self._running: tuple[_Batch[T], Future[list[Outcome]]] | None = None
        # Two arrays take turns: to fill the same memory again is several times as fast as new memory.
        self._spare: list[NDArray[Any]] = []

    @property
    def waiting(self) -> int:
        """How many items were added and not yet returned."""
        return len(self._collected.items) + (0 if self._running is None else len(self._running[0].items))

    @property
    def due(self) -> bool:
        """Whether to call `advance`: the batch is full, or its first item has waited long enough."""
        collected = self._collected
        max_wait = _MAX_WAIT if self._max_wait is None else self._max_wait
        full = len(collected.positions) >= self.size
        full = full or len(collected.items) >= self.size + _MAX_WITHOUT_PIXELS
        return full or (bool(collected.items) and self._clock() - collected.started >= max_wait)

    def add(
        self, item: T, pixels: NDArray[Any] | None = None, error: VitmaeSearchError | None = None
    ) -> None:
        """Collect an item.

        Args:
            item: What `advance` gives back.
            pixels: What `prepare` gave, which is copied; None for an item that is not to be computed.
            error: The plugin's error, where `prepare` failed.
        """
        batch = self._collected
        if not batch.items:
            batch.started = self._clock()
        if pixels is not None:
            if batch.pixels is None:
                batch.pixels = self._new_array(pixels)
            batch.pixels[len(batch.positions)] = pixels
            batch.positions.append(len(batch.items))
        if error is not None:
            batch.errors.append(error)
        batch.items.append(item)

    def advance(self) -> list[tuple[T, Outcome | None]]:
        """Wait for the batch that is being computed, start the collected one, and return the former.

        Returns:
            Each item with the outcome of its pixels, None where it has none; empty if nothing was computed.

        Raises:
            VitmaeSearchError: As `run_with_fallback`; and the plugin's error, where every photo of the batch
                failed and the model fails at an ordinary image, too. No batch is started then.
        """
        done = self.finish()
        if self._collected.items:
            batch, self._collected = self._collected, _Batch[T]()
            assert self._executor is not None
            self._running = batch, self._executor.submit(self._compute, batch)
        return done

    def finish(self) -> list[tuple[T, Outcome | None]]:
        """Return the batch that is being computed, as `advance` does, and start no other."""
        if self._running is None:
            return []
        batch, computing = self._running
        outcomes = computing.result()
        self._running = None
        if batch.pixels is not None:
            self._spare.append(batch.pixels)
        return list(batch.with_outcomes(outcomes))

    def close(self) -> None:
        """Wait for the batch that is being computed, and end the thread."""
        if self._own_thread is not None:
            self._own_thread.shutdown(wait=True, cancel_futures=True)

    def _new_array(self, pixels: NDArray[Any]) -> NDArray[Any]:
        return self._spare.pop() if self._spare else np.empty((self.size, *pixels.shape), pixels.dtype)

    def _compute(self, batch: _Batch[T]) -> list[Outcome]:
        count = len(batch.positions)
        outcomes = [] if batch.pixels is None else run_with_fallback(self._run, batch.pixels[:count])
        failed = [outcome for outcome in outcomes if isinstance(outcome, VitmaeSearchError)]
        errors = batch.errors + failed
        if errors and len(failed) == len(outcomes) and not health_check(self._prepare, self._run):
            raise errors[0]
        return outcomes


def vector_batcher(dimension: int, size: int | None) -> Batcher[T]:
    """A batcher for what is embedded already: its pixels are vectors, which it gives back.

    Args:
        dimension: Numbers of a vector.
        size: Vectors in a batch; None is 128.
    """
    return Batcher[T](
        lambda image: np.zeros(dimension, np.float32), np.array, size or _MAX_DEFAULT_BATCH_SIZE
    )


def run_with_fallback(run: RunBatch, batch: NDArray[Any]) -> list[Outcome]:
    """Run a model on a batch so that a bad image fails alone.

    A batch that fails is tried again row by row; one that does not fit into memory, in halves.

    Args:
        run: The model.
        batch: Prepared images, (N, ...).

    Returns:
        For each image its row (D,), or the error that it gives alone.

    Raises:
        DeviceError: Not even one image fits into memory, or the device is lost: no image is at fault.
    """
    if len(batch) == 0:
        return []
    try:
        return list(run(batch))
    except MemoryError:
        if len(batch) == 1:
            with translate_memory_errors("look at a single photo"):
                raise
        part = -(-len(batch) // 2)
    except DeviceError:
        raise
    except VitmaeSearchError as error:
        if len(batch) == 1:
            return [error]
        part = 1
    # Outside the except clauses: the exception holds what the plugin had in memory.
    return [
        outcome
        for start in range(0, len(batch), part)
        for outcome in run_with_fallback(run, batch[start : start + part])
    ]


def health_check(prepare: Prepare, run: RunBatch) -> bool:
    """Say whether a model works on an ordinary image; if not, no photo is at fault.

    Args:
        prepare: The plugin's.
        run: The model.

    Raises:
        DeviceError: The device is lost.
    """
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((256, 192), Image.Resampling.BICUBIC)
    try:
        run(prepare(image)[None])
    except DeviceError:
        raise
    except (VitmaeSearchError, MemoryError):
        return False
    return True
