"""Two lanes through a GPU: while it computes one part of a batch, the host fills and empties the other lane.

What a stream is given happens in order, and later: the host goes on at once. A lane owns its stream and all
the memory that it writes to, so that three rules are enough. Its input is filled, and its output read, only
when its stream has been waited for. Lanes share nothing but weights, which were there before. And a lane is
let go of only when its stream has been waited for.
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
"""Starts something on the current stream."""

_VALUES = 20_000_000
"""Of one layer's output in a part: 128 images of a ViT-B/16 at 224. Its narrowest product has 591 tiles of
128 × 256 then, more than four for each of an H100's 132 multiprocessors."""
_LARGEST = 1024
_FEW = 4


def part_for(tokens: int, width: int) -> int:
    """How many images of `tokens` × `width` values a lane computes at a time: a power of two."""
    fitting = max(1.0, _VALUES / (tokens * width))
    return min(_LARGEST, 1 << round(math.log2(fitting)))


class Stream(Protocol):
    """What is launched on it happens in order, at any time from then on until `wait` returns."""

    def on_host(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Uninitialised memory of the host that copies to and from the device may be launched with."""
        ...

    def on_device(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Uninitialised memory of the device, which this stream alone uses."""
        ...

    def launch(self, work: Work) -> None: ...

    def wait(self) -> None: ...

    def recorded(self, work: Work) -> Work:
        """What does the same as `work` at less cost, or `work` itself. Runs it, too."""
        ...


class Lane:
    """`part` rows at a time through a stream of its own. `start` and `collect` take turns."""

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

        self._compute = stream.recorded(compute)

    def start(self, rows: Rows) -> None:
        """Up to `part` rows. What was there before remains behind them, and nobody looks at what it gives."""
        count = self._rows = len(rows)
        self._host_in.numpy()[:count] = rows
        self._stream.launch(lambda: self._in[:count].copy_(self._host_in[:count], non_blocking=True))
        self._stream.launch(self._compute)
        self._stream.launch(lambda: self._host_out[:count].copy_(self._out[:count], non_blocking=True))

    def collect(self) -> NDArray[np.float32]:
        """What the rows of the last `start` give: a view, to be copied before the next one."""
        self._stream.wait()
        rows: NDArray[np.float32] = self._host_out[: self._rows].numpy()
        return rows

    def wait(self) -> None:
        self._stream.wait()


class Lanes:
    """Batches of any size through lanes of `part` rows, one for each of `streams`, by one caller at a time.

    `forward` takes (n, ...) uint8 on the device to (n, `width`) float32. `at_once` does the same for rows of
    the host and waits for it: so few rows are computed, without lanes. Where memory is short, lanes are made
    for half as many rows, again and again, and stay so. `free_unused` is called when they are gone.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        at_once: Callable[[Rows], NDArray[np.float32]],
        *,
        part: int,
        width: int,
        streams: Sequence[Stream],
        free_unused: Callable[[], None],
    ) -> None:
        self._forward, self._at_once, self._free_unused = forward, at_once, free_unused
        self.part, self._width, self._streams = part, width, streams
        self._lanes: list[Lane] = []

    def run(self, rows: Rows) -> NDArray[np.float32]:
        """(N, ...) uint8 to (N, `width`). Raises MemoryError where not even one row fits."""
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
            self._halve()  # no earlier: until here the error's traceback holds tensors
        return found

    def drop(self) -> None:
        """Let go of the lanes and their memory; the next `run` makes new ones."""
        for lane in self._lanes:
            try:
                lane.wait()
            except RuntimeError:  # the device was lost: an error while freeing would end the process
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(lane))
        self._lanes.clear()

    def _parts(self, rows: Rows) -> Iterator[NDArray[np.float32]]:
        """What the rows give, in order, part by part; each is to be copied before the next is asked for."""
        try:
            if _FEW * len(rows) < self.part:
                yield self._at_once(rows)
            else:
                yield from self._in_turns(rows)
        except BaseException:
            self.drop()  # some may still be computing
            raise

    def _in_turns(self, rows: Rows) -> Iterator[NDArray[np.float32]]:
        free, busy = deque(self._opened(rows.shape[1:])), deque[Lane]()
        for start in range(0, len(rows), self.part):
            if not free:
                yield busy[0].collect()
                free.append(busy.popleft())
            free[0].start(rows[start : start + self.part])
            busy.append(free.popleft())
        for lane in busy:
            yield lane.collect()

    def _opened(self, shape: tuple[int, ...]) -> list[Lane]:
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
