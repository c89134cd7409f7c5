"""Lanes: while a GPU computes one part of a batch, the host fills and empties the buffers of another lane.

Work given to a stream runs in order, asynchronously. A lane owns its stream and all buffers that it writes
to, so three invariants suffice: a lane's input is filled and its output read only after its stream was
waited for; lanes share nothing but weights, which were complete before; and a lane is freed only after its
stream was waited for. Tests check them on a CPU with a delayed fake stream.
"""

from __future__ import annotations

import ctypes
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .devices import out_of_memory

log = logging.getLogger(__name__)

Rows = NDArray[Any]
Work = Callable[[], object]
"""Queues something on the current stream."""

_VALUES_PER_PART = 20_000_000
"""Values of one layer's output in a part: 128 images of a ViT-B/16 at 224. Its narrowest product then has 591
tiles of 128 × 256, more than four for each of an H100's 132 multiprocessors."""
_MAX_PART = 1024
_MIN_SHARE = 4
"""A batch of less than a fourth of a part is computed without lanes."""


def rows_per_part(tokens: int, width: int) -> int:
    """How many images a lane computes at a time, a power of two.

    Args:
        tokens: Of an image.
        width: Of a token.
    """
    fitting = max(1.0, _VALUES_PER_PART / (tokens * width))
    return min(_MAX_PART, 1 << round(math.log2(fitting)))


class Stream(Protocol):
    """A queue of a device: work runs in order, at any time until `wait` returns."""

    def on_host(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Uninitialised host memory for asynchronous copies to and from the device.

        Args:
            shape: The tensor's shape.
            dtype: Its type.
        """
        ...

    def on_device(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Uninitialised device memory, which only this stream uses.

        Args:
            shape: The tensor's shape.
            dtype: Its type.
        """
        ...

    def launch(self, work: Work) -> None:
        """Queue work."""
        ...

    def wait(self) -> None:
        """Wait until all queued work is done."""
        ...

    def record(self, work: Work) -> Work:
        """A cheaper equivalent of `work`, or `work` itself. Also runs it."""
        ...


class Lane:
    """Computes up to `part` rows at a time on its own stream. `start` and `collect` alternate.

    Args:
        stream: Used by no other lane.
        forward: (part, ...) uint8 on the device to (part, width) float32.
        part: Rows at a time.
        shape: Of a row.
        width: Of a result.
    """

    def __init__(
        self,
        stream: Stream,
        forward: Callable[[Tensor], Tensor],
        part: int,
        shape: tuple[int, ...],
        width: int,
    ) -> None:
        self._stream, self._rows = stream, 0
        self._host_in = stream.on_host((part, *shape), torch.uint8)
        self._host_out = stream.on_host((part, width), torch.float32)
        self._in = device_in = stream.on_device((part, *shape), torch.uint8)
        self._out = device_out = stream.on_device((part, width), torch.float32)

        def compute() -> None:
            device_out.copy_(forward(device_in))

        self._compute = stream.record(compute)

    def start(self, rows: Rows) -> None:
        """Queue up to `part` rows. Rows beyond `len(rows)` hold stale data and are discarded."""
        count = self._rows = len(rows)
        self._host_in.numpy()[:count] = rows
        self._stream.launch(lambda: self._in[:count].copy_(self._host_in[:count], non_blocking=True))
        self._stream.launch(self._compute)
        self._stream.launch(lambda: self._host_out[:count].copy_(self._out[:count], non_blocking=True))

    def collect(self) -> NDArray[np.float32]:
        """Wait for the results of the last `start`: a view, valid until the next `start`."""
        self._stream.wait()
        rows: NDArray[np.float32] = self._host_out[: self._rows].numpy()
        return rows

    def wait(self) -> None:
        """Wait for the stream."""
        self._stream.wait()


class Lanes:
    """Computes batches of any size on several lanes; for one caller at a time.

    If memory is short, the lanes are made anew for half as many rows, repeatedly, and stay so.

    Args:
        forward: (n, ...) uint8 on the device to (n, width) float32.
        run_directly: The same from host to host, synchronously; used for few rows.
        part: Rows that a lane computes at a time.
        width: Of a result.
        streams: One for each lane.
        free_unused: Called after lanes were dropped.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        run_directly: Callable[[Rows], NDArray[np.float32]],
        *,
        part: int,
        width: int,
        streams: Sequence[Stream],
        free_unused: Callable[[], None],
    ) -> None:
        self._forward, self._run_directly, self._free_unused = forward, run_directly, free_unused
        self.part, self._width, self._streams = part, width, streams
        self._lanes: list[Lane] = []

    def run(self, rows: Rows) -> NDArray[np.float32]:
        """(N, ...) uint8 to (N, width) float32. Raises MemoryError if not even one row fits."""
        found, done = np.empty((len(rows), self._width), np.float32), 0
        while done < len(rows):
            try:
                for part in self._parts(rows[done:]):
                    found[done : done + len(part)] = part
                    done += len(part)
                return found
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            self._halve()  # only now is the error gone, whose traceback holds tensors
        return found

    def drop(self) -> None:
        """Free the lanes and their memory; the next `run` makes new ones."""
        for lane in self._lanes:
            try:
                lane.wait()
            except RuntimeError:  # the device was lost; freeing its memory would abort the process
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(lane))
        self._lanes.clear()

    def _parts(self, rows: Rows) -> Iterator[NDArray[np.float32]]:
        """The results, part by part; each is valid until the next is requested."""
        try:
            if _MIN_SHARE * len(rows) < self.part:
                yield self._run_directly(rows)
            else:
                yield from self._alternate(rows)
        except BaseException:
            self.drop()  # lanes may still be computing
            raise

    def _alternate(self, rows: Rows) -> Iterator[NDArray[np.float32]]:
        free, busy = deque(self._open_lanes(rows.shape[1:])), deque[Lane]()
        for start in range(0, len(rows), self.part):
            if not free:
                yield busy[0].collect()
                free.append(busy.popleft())
            free[0].start(rows[start : start + self.part])
            busy.append(free.popleft())
        for lane in busy:
            yield lane.collect()

    def _open_lanes(self, shape: tuple[int, ...]) -> list[Lane]:
        for stream in self._streams[len(self._lanes) :]:
            self._lanes.append(Lane(stream, self._forward, self.part, shape, self._width))
        return self._lanes

    def _halve(self) -> None:
        self.drop()
        self._free_unused()
        if self.part == 1:
            raise MemoryError("the device has not enough memory for a single photo")
        self.part //= 2
        log.warning("The device's memory is short: going on with %d photos at a time", self.part)
