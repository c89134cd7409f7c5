"""How batches are computed on each device: a network's weights, and the way of its photos through it."""

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

from .cpu_threads import Split, SplitWork
from .devices import computing, device_name, free_unused, prepacks, telling
from .lanes import Lanes, Rows, Stream, part_for
from .networks import Network
from .openvino import OpenVINOEncoder
from .streams import CudaStream

_LANES = 2
_PARTS = 4
"""Of a batch: both lanes stay busy for most of it."""
_FOR_ANY_NUMBER = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""The attentions that are ready at once. cuDNN's, which torch prefers on an H100, plans anew for every number
of photos and in every thread, and never forgets: a search would wait for it each time."""

T = TypeVar("T")


def engine_for(
    network: Network,
    config: ViTMAEConfig | ViTConfig,
    size: tuple[int, int],
    *,
    device: torch.device,
    precision: str,
) -> Engine:
    """The network on its device, for images of `size`, (height, width), in pixels.

    In bf16 its encoder is prepacked, in place. Raises MemoryError where the weights do not fit, `DeviceError`
    where the device fails.
    """
    openvino = isinstance(network.encoder, OpenVINOEncoder)
    with telling(str(device)):
        if prepacks(device, precision) and not isinstance(network.encoder, OpenVINOEncoder):
            prepack(network.encoder, device)
            network.levels = network.levels.to(torch.bfloat16)  # as it would round the pixels
        if device.type == "cpu":
            only = Split(torch.get_num_threads(), 1) if openvino else None
            return CpuEngine(network, precision, SplitWork(size, config, precision, only))
        if device.type == "cuda":
            (height, width), (ph, pw) = size, config.patch_shape
            part = part_for(1 + (height // ph) * (width // pw), config.hidden_size)
            return CudaEngine(network, device, precision, part, [CudaStream(device) for _ in range(_LANES)])
        return Engine(network, device, precision)


class Engine:
    """All rows at once, where the weights are: right on any device. For one caller at a time.

    Its calls raise MemoryError where not even one row fits, and `DeviceError` where the device failed, from
    then on at every call. `batch_size` is how many rows suit the device, None where the host may choose.
    """

    batch_size: int | None = None

    def __init__(self, network: Network, device: torch.device, precision: str) -> None:
        self._network: Network | None = network
        self._device, self._precision = device, precision
        name = device_name(device)
        self._name = name if name == str(device) else f"{device} ({name})"
        self._lost: str | None = None
        self._resting = True
        self._wake()

    def run(self, rows: Rows) -> NDArray[np.float32]:
        """(N, ...) uint8 to the network's (N, D), new and C-contiguous."""
        with self._telling():
            self._wake()
            return self._rows(rows)

    def run_alone(self, work: Callable[[], T]) -> T:
        """Something else on the same device, with the same errors."""
        with self._telling():
            return work()

    def rest(self, *others: nn.Module) -> None:
        """Give the device's memory back until the next call: the network's, and that of `others`.

        `others` are modules of the caller's, who moves them back.
        """
        self._let_go()
        if self._network is None or self._lost is not None or self._device.type == "cpu":
            return
        with self._telling():
            for module in (self._network, *others):
                module.to("cpu")
            self._resting = True
            free_unused(self._device)

    def close(self) -> None:
        """Let go of the network, and give back what the device keeps for it."""
        self._let_go()
        self._network = None
        with suppress(RuntimeError):  # of a device that was lost
            free_unused(self._device)

    def _rows(self, rows: Rows) -> NDArray[np.float32]:
        return self._at_once(rows)

    def _let_go(self) -> None:
        """Of what else is on the device, and can be made again."""

    def _at_once(self, rows: Rows) -> NDArray[np.float32]:
        found = self._forward(torch.tensor(rows, device=self._device))
        return np.ascontiguousarray(found.cpu().numpy())

    def _forward(self, batch: Tensor) -> Tensor:
        assert self._network is not None, "closed"
        with computing(self._device, self._precision):
            rows: Tensor = self._network(batch)
        return rows

    def _wake(self) -> None:
        assert self._network is not None, "closed"
        if self._resting:
            self._network.to(self._device)
            if self._device.type == "cuda":  # before another stream reads the weights
                torch.cuda.current_stream(self._device).synchronize()
            self._resting = False

    @contextmanager
    def _telling(self) -> Iterator[None]:
        if self._lost is not None:
            raise DeviceError(self._lost)
        try:
            with telling(self._name):
                yield
        except DeviceError as error:
            self._lost = str(error)
            self._let_go()
            raise


class CpuEngine(Engine):
    """The cores share a batch in the way that is the fastest here."""

    def __init__(self, network: Network, precision: str, split: SplitWork) -> None:
        super().__init__(network, torch.device("cpu"), precision)
        self._split = split

    def close(self) -> None:
        self._split.close()
        super().close()

    def _rows(self, rows: Rows) -> NDArray[np.float32]:
        return self._split.run(self._at_once, rows)


class CudaEngine(Engine):
    """Parts of a batch take turns on lanes, one for each of `streams`.

    After `fuse_after` seconds of that, norms and sums are compiled: it takes some seconds, which a run over a
    few photos would never get back.
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
            self._for_lanes,
            self._at_once,
            part=part,
            width=network.width,
            streams=streams,
            free_unused=partial(free_unused, device),
        )

    def run_alone(self, work: Callable[[], T]) -> T:
        """As `Engine.run_alone`; where memory is short, once more without the lanes."""
        with suppress(MemoryError):
            return super().run_alone(work)
        self._lanes.drop()
        free_unused(self._device)
        return super().run_alone(work)

    def _let_go(self) -> None:
        self._lanes.drop()
        self._lanes.part = self._largest

    def _at_once(self, rows: Rows) -> NDArray[np.float32]:
        with sdpa_kernel(_FOR_ANY_NUMBER):
            return super()._at_once(rows)

    def _rows(self, rows: Rows) -> NDArray[np.float32]:
        if not self._fuses and self._seconds >= self.fuse_after:
            self._fuses = True
            self._lanes.drop()  # their graphs hold what was not compiled
        started = perf_counter()
        found = self._lanes.run(rows)
        self._seconds += perf_counter() - started
        return found

    def _for_lanes(self, batch: Tensor) -> Tensor:
        with fusing() if self._fuses else nullcontext():
            return self._forward(batch)
