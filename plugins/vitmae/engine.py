"""Engines: how batches of prepared photos are computed on a CPU, on CUDA, and on other devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitmae_search.errors import DeviceError
from vitmae_search.vitmae import ViTConfig, ViTMAEConfig, fusing, prepack

from .cpu_threads import LayoutTuner, ThreadLayout
from .devices import (
    device_name,
    free_unused,
    inference_context,
    translate_device_errors,
    uses_prepacked_weights,
)
from .lanes import Lanes, Rows, Stream, rows_per_part
from .networks import Network
from .openvino import OpenVINOEncoder
from .streams import CudaStream

_LANES = 2
_PARTS = 4
"""Parts of a batch, so that both lanes are busy for most of it."""
_PLAN_FREE_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Attention kernels without a planning phase. cuDNN's, which torch prefers on an H100, plans for each number
of photos in each thread and keeps every plan; a search would wait for it each time."""

T = TypeVar("T")


def engine_for(
    network: Network,
    config: ViTMAEConfig | ViTConfig,
    size: tuple[int, int],
    *,
    device: torch.device,
    precision: str,
) -> Engine:
    """Move a network to its device; in bf16 its encoder is prepacked in place.

    Args:
        network: What to compute.
        config: The model's configuration.
        size: (height, width) of the images, in pixels.
        device: Where to compute.
        precision: "bf16" or "fp32".

    Raises:
        MemoryError: The weights do not fit.
        DeviceError: The device failed.
    """
    openvino = isinstance(network.encoder, OpenVINOEncoder)
    with translate_device_errors(str(device)):
        if uses_prepacked_weights(device, precision) and not isinstance(network.encoder, OpenVINOEncoder):
            prepack(network.encoder, device)
            network.levels = network.levels.to(torch.bfloat16)  # the encoder would round the pixels anyway
        if device.type == "cpu":
            layout = ThreadLayout(torch.get_num_threads(), 1) if openvino else None
            return CpuEngine(network, precision, LayoutTuner(size, config, precision, layout))
        if device.type == "cuda":
            (height, width), (ph, pw) = size, config.patch_shape
            part = rows_per_part(1 + (height // ph) * (width // pw), config.hidden_size)
            return CudaEngine(network, device, precision, part, [CudaStream(device) for _ in range(_LANES)])
        return Engine(network, device, precision)


class Engine:
    """Computes all rows of a batch in one call, on any device. For one caller at a time.

    Its methods raise MemoryError if not even one row fits, and `DeviceError` if the device failed, then and
    in every later call.

    Args:
        network: What to compute.
        device: Where.
        precision: "bf16" or "fp32".

    Attributes:
        batch_size: The number of rows that suits the device; None if any does.
    """

    batch_size: int | None = None

    def __init__(self, network: Network, device: torch.device, precision: str) -> None:
        self._network: Network | None = network
        self._device, self._precision = device, precision
        name = device_name(device)
        self._name = name if name == str(device) else f"{device} ({name})"
        self._lost: str | None = None
        self._offloaded = True
        self._load_weights()

    def run(self, rows: Rows) -> NDArray[np.float32]:
        """(N, ...) uint8 to the network's (N, D), a new C-contiguous array."""
        with self._translate_errors():
            self._load_weights()
            return self._rows(rows)

    def run_alone(self, work: Callable[[], T]) -> T:
        """Call `work`, which uses the same device, and translate its errors in the same way."""
        with self._translate_errors():
            return work()

    def offload(self, *others: nn.Module) -> None:
        """Move the network to the host until the next call, and free the device's memory.

        Args:
            others: Modules to move as well; the caller moves them back.
        """
        self._release_lanes()
        if self._network is None or self._lost is not None or self._device.type == "cpu":
            return
        with self._translate_errors():
            for module in (self._network, *others):
                module.to("cpu")
            self._offloaded = True
            free_unused(self._device)

    def close(self) -> None:
        """Drop the network, and free the device's memory."""
        self._release_lanes()
        self._network = None
        with suppress(RuntimeError):  # the device may be lost
            free_unused(self._device)

    def _rows(self, rows: Rows) -> NDArray[np.float32]:
        return self._run_directly(rows)

    def _release_lanes(self) -> None:
        """Free what else is on the device and can be made again."""

    def _run_directly(self, rows: Rows) -> NDArray[np.float32]:
        found = self._forward(torch.tensor(rows, device=self._device))
        return np.ascontiguousarray(found.cpu().numpy())

    def _forward(self, batch: Tensor) -> Tensor:
        assert self._network is not None, "closed"
        with inference_context(self._device, self._precision):
            rows: Tensor = self._network(batch)
        return rows

    def _load_weights(self) -> None:
        assert self._network is not None, "closed"
        if self._offloaded:
            self._network.to(self._device)
            if self._device.type == "cuda":  # other streams read the weights
                torch.cuda.current_stream(self._device).synchronize()
            self._offloaded = False

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        if self._lost is not None:
            raise DeviceError(self._lost)
        try:
            with translate_device_errors(self._name):
                yield
        except DeviceError as error:
            self._lost = str(error)
            self._release_lanes()
            raise


class CpuEngine(Engine):
    """Spreads a batch over the CPU's cores.

    Args:
        network: What to compute.
        precision: "bf16" or "fp32".
        threads: Runs the parts of a batch.
    """

    def __init__(self, network: Network, precision: str, threads: LayoutTuner) -> None:
        super().__init__(network, torch.device("cpu"), precision)
        self._threads = threads

    def close(self) -> None:
        """As `Engine.close`; also stop the threads."""
        self._threads.close()
        super().close()

    def _rows(self, rows: Rows) -> NDArray[np.float32]:
        return self._threads.run(self._run_directly, rows)


class CudaEngine(Engine):
    """Computes the parts of a batch on several CUDA streams by turns.

    After `fuse_after` seconds of work, norms and sums are compiled. That takes some seconds, which a run over
    a few photos would not recover.

    Args:
        network: What to compute.
        device: A CUDA device.
        precision: "bf16" or "fp32".
        part: Rows of a part.
        streams: One for each lane.
    """

    fuse_after = 20.0

    def __init__(
        self,
        network: Network,
        device: torch.device,
        precision: str,
        part: int,
        streams: Sequence[Stream],
    ) -> None:
        super().__init__(network, device, precision)
        self.batch_size, self._largest = _PARTS * part, part
        self._seconds, self._fuses = 0.0, False
        self._lanes = Lanes(
            self._forward_part,
            self._run_directly,
            part=part,
            width=network.width,
            streams=streams,
            free_unused=partial(free_unused, device),
        )

    def run_alone(self, work: Callable[[], T]) -> T:
        """As `Engine.run_alone`; if memory is short, free the lanes and try again."""
        with suppress(MemoryError):
            return super().run_alone(work)
        self._lanes.drop()
        free_unused(self._device)
        return super().run_alone(work)

    def _release_lanes(self) -> None:
        self._lanes.drop()
        self._lanes.part = self._largest

    def _run_directly(self, rows: Rows) -> NDArray[np.float32]:
        with sdpa_kernel(_PLAN_FREE_ATTENTION):
            return super()._run_directly(rows)

    def _rows(self, rows: Rows) -> NDArray[np.float32]:
        if not self._fuses and self._seconds >= self.fuse_after:
            self._fuses = True
            self._lanes.drop()  # their graphs were captured uncompiled
        started = perf_counter()
        found = self._lanes.run(rows)
        self._seconds += perf_counter() - started
        return found

    def _forward_part(self, batch: Tensor) -> Tensor:
        with fusing() if self._fuses else nullcontext():
            return self._forward(batch)
