"""A stream of a CUDA device: what `lanes` needs of one, in torch's words."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import ClassVar

import torch
from torch import Tensor

from .devices import CAPTURING, out_of_memory
from .lanes import Work

log = logging.getLogger(__name__)

_WARM_UPS = 3
"""As torch advises: the first runs compile, choose kernels, and make what those work in, on this stream."""


class CudaStream:
    """See `lanes.Stream`. torch hands out 32 streams by turns, so that one is taken once and kept.

    Where a graph cannot be made, the log says so once, and no other is tried: each attempt may leave memory
    behind.
    """

    graphs: ClassVar[bool] = True

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def on_host(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        with torch.cuda.stream(self._stream):  # pinned for the device of this stream
            return torch.empty(shape, dtype=dtype, pin_memory=True)

    def on_device(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        with torch.cuda.stream(self._stream):  # so the memory belongs to it, and needs no record_stream
            return torch.empty(shape, dtype=dtype, device=self._device)

    def launch(self, work: Work) -> None:
        with torch.cuda.stream(self._stream):
            work()

    def wait(self) -> None:
        self._stream.synchronize()

    def recorded(self, work: Work) -> Work:
        with CAPTURING:
            for _ in range(_WARM_UPS):
                self.launch(work)
            self.wait()
            return self._captured(work) if self.graphs else work

    def _captured(self, work: Work) -> Work:
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        try:
            # The outer one gives the caller its stream back where ending the capture fails. Other threads may
            # allocate: thread_local forbids what no capture allows to this thread alone.
            with (
                torch.cuda.stream(self._stream),
                torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"),
            ):
                work()
        except RuntimeError as error:
            # torch before 2.12 leaves its allocator in a capture that failed, and then can free no memory.
            with suppress(RuntimeError, AttributeError):  # it has left, or has no such function
                torch._C._cuda_endAllocateToPool(self._stream.device_index, pool)
            if out_of_memory(error) or out_of_memory(error.__context__):  # ending what failed raises again
                raise torch.OutOfMemoryError(str(error)) from error
            CudaStream.graphs = False
            reason = str(error).strip().partition("\n")[0]
            log.warning("No CUDA graph can be made here, so that encoding takes longer: %s", reason)
            return work
        return graph.replay
