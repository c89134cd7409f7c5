"""CUDA streams for `lanes`, with CUDA graphs."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import ClassVar

import torch
from torch import Tensor

from .devices import CUDA_GRAPH_LOCK, out_of_memory
from .lanes import Work

log = logging.getLogger(__name__)

_WARM_UPS = 3
"""Runs before a capture, as torch recommends: they compile, choose kernels and allocate workspaces."""


class CudaStream:
    """See `lanes.Stream`. torch has 32 streams, which it hands out by turns, so each is taken once and kept.

    If a graph cannot be captured, the log says so and no other is tried, since each attempt may leak memory.

    Args:
        device: A CUDA device.
    """

    graphs: ClassVar[bool] = True

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def on_host(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """See `lanes.Stream`.

        Args:
            shape: The tensor's shape.
            dtype: Its type.
        """
        with torch.cuda.stream(self._stream):  # pinned for the device of this stream
            return torch.empty(shape, dtype=dtype, pin_memory=True)

    def on_device(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """See `lanes.Stream`.

        Args:
            shape: The tensor's shape.
            dtype: Its type.
        """
        with torch.cuda.stream(self._stream):  # the memory belongs to this stream and needs no record_stream
            return torch.empty(shape, dtype=dtype, device=self._device)

    def launch(self, work: Work) -> None:
        """See `lanes.Stream`."""
        with torch.cuda.stream(self._stream):
            work()

    def wait(self) -> None:
        """See `lanes.Stream`."""
        self._stream.synchronize()

    def record(self, work: Work) -> Work:
        """See `lanes.Stream`."""
        with CUDA_GRAPH_LOCK:
            for _ in range(_WARM_UPS):
                self.launch(work)
            self.wait()
            return self._capture(work) if self.graphs else work

    def _capture(self, work: Work) -> Work:
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        try:
            # The outer context restores the caller's stream if ending the capture fails. With thread_local,
            # other threads may allocate during the capture.
            with (
                torch.cuda.stream(self._stream),
                torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"),
            ):
                work()
        except RuntimeError as error:
            # Before 2.12 torch's allocator stays in a failed capture, and then can free no memory.
            with suppress(RuntimeError, AttributeError):  # it is in none, or there is no such function
                torch._C._cuda_endAllocateToPool(self._stream.device_index, pool)
            if out_of_memory(error) or out_of_memory(error.__context__):  # ending what failed raises again
                raise torch.OutOfMemoryError(str(error)) from error
            CudaStream.graphs = False
            reason = str(error).strip().partition("\n")[0]
            log.warning("No CUDA graph can be made here, so that encoding takes longer: %s", reason)
            return work
        return graph.replay
