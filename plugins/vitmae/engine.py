"""Engines: how batches of prepared photos are computed on a CPU, on CUDA, and on other devices."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vitmae_search.errors import DeviceError
from vitmae_search.vitmae import ViTConfig, ViTMAEConfig, convert_to_bf16
from vitmae_search.vitmae.inference import (
    Engine,
    free_unused,
    inference_context,
    out_of_memory,
    translate_device_errors,
)

from .cpu_threads import Rows, WorkerPool, is_small, one_thread
from .networks import Network
from .openvino import OpenVINOCompiler, OpenVINOEncoder

log = logging.getLogger(__name__)

_CPU_VALUES, _CUDA_VALUES = 300_000, 20_000_000
"""Values of one layer's output in a part of a batch: 24 images of the bundled model on a CPU, where twice
that was no faster; 128 of a ViT-B/16 at 224 on CUDA."""
_MAX_CUDA_PART = 1024
_RUN_ROWS = 16
"""Rows of a batch in a run. A query with its variants has fewer, and never waits for OpenVINO."""
_CUDA_PARTS = 4
"""Parts of a batch on CUDA, so that the host prepares one while another is computed."""
_SAME = {"fp32": 0.9999, "bf16": 0.999}
"""The lowest cosine of vectors that two ways to compute must agree to, by precision."""


def engine_for(
    network: Network,
    config: ViTMAEConfig | ViTConfig,
    size: tuple[int, int],
    *,
    device: torch.device,
    precision: str,
    compiler: OpenVINOCompiler | None = None,
) -> Engine[Network]:
    """Move a network to its device; in bf16 its encoder is converted in place.

    Args:
        network: What to compute.
        config: The model's configuration.
        size: (height, width) of the images, in pixels.
        device: Where to compute.
        precision: "bf16" or "fp32".
        compiler: Of the network's encoder, for long runs on a CPU.

    Raises:
        MemoryError: The weights do not fit.
        DeviceError: The device failed.
    """
    with translate_device_errors(str(device)):
        if precision == "bf16" and not isinstance(network.encoder, OpenVINOEncoder):
            with one_thread():
                convert_to_bf16(network.encoder)
            network.levels = network.levels.to(torch.bfloat16)  # the encoder would round the pixels anyway
        (height, width), (ph, pw) = size, config.patch_shape
        values = (1 + (height // ph) * (width // pw)) * config.hidden_size
        if device.type == "cpu":
            return CpuEngine(network, precision, max(1, _CPU_VALUES // values), compiler)
        if device.type == "cuda":
            part = min(_MAX_CUDA_PART, max(1, _CUDA_VALUES // values))
            return CudaEngine(network, device, precision, part)
        return Engine(network, device, precision)


class CpuEngine(Engine[Network]):
    """Spreads a batch over the CPU's cores, and in long runs computes it with OpenVINO.

    Args:
        network: What to compute.
        precision: "bf16" or "fp32".
        part: Rows that a core computes at a time.
        compiler: Gives the encoder in OpenVINO; None for torch alone.

    Attributes:
        compile_after: Seconds of encoding in runs after which the encoder is compiled, which takes a few.
            One that was compiled before is used from the first batch of a run on.
    """

    compile_after = 20.0

    def __init__(
        self, network: Network, precision: str, part: int, compiler: OpenVINOCompiler | None = None
    ) -> None:
        super().__init__(network, torch.device("cpu"), precision)
        self._pool = WorkerPool(torch.get_num_threads(), part, small=is_small(network))
        self._compiler, self._seconds = compiler, 0.0

    def close(self) -> None:
        """As `Engine.close`; also stop the threads."""
        self._pool.close()
        self._compiler = None
        super().close()

    def _rows(self, rows: Rows) -> NDArray[np.float32]:
        started = perf_counter()
        found = self._pool.run(self._run_directly, rows)
        if self._compiler is not None and len(rows) >= _RUN_ROWS:
            self._seconds += perf_counter() - started
            if self._seconds >= self.compile_after or self._compiler.is_cached():
                self._use_openvino(self._compiler, rows[:2], found[:2])
        return found

    def _rows_of(self, network: nn.Module, rows: Rows) -> NDArray[np.float32]:
        return self._pool.run(partial(super()._rows_of, network), rows)

    def _use_openvino(self, compiler: OpenVINOCompiler, rows: Rows, expected: NDArray[np.float32]) -> None:
        """Replace the encoder, if OpenVINO's gives what torch's gave."""
        self._compiler = None
        assert self._network is not None, "closed"
        encoder = self._network.encoder
        try:
            self._network.encoder = compiler.compile()
            _require_same(self._run_directly(rows), expected, self._precision)
        except Exception as error:  # whatever a compiler may raise: torch goes on
            self._network.encoder = encoder
            log.warning("OpenVINO is not used, so encoding takes longer: %s", _first_line(error))


class CudaEngine(Engine[Network]):
    """Computes a batch on a GPU part by part: while it computes one, the host prepares the next.

    If memory is short, parts are halved, and stay so. The first vectors are compared with the CPU's.

    Args:
        network: What to compute.
        device: A CUDA device.
        precision: "bf16" or "fp32".
        part: Rows of a part.

    Attributes:
        compile_after: Seconds of work after which torch compiles the network. That takes some seconds, which
            a run over a few photos would not recover.
    """

    compile_after = 20.0

    def __init__(self, network: Network, device: torch.device, precision: str, part: int) -> None:
        super().__init__(network, device, precision)
        self.batch_size = _CUDA_PARTS * part
        self._part, self._seconds, self._compared = part, 0.0, False
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._may_compile = True

    def offload(self, *others: nn.Module) -> None:
        """As `Engine.offload`; what was compiled reads weights where they were, so it goes as well."""
        if self._compiled is not None:
            self._compiled, self._may_compile, self._seconds = None, True, 0.0
            torch.compiler.reset()
        super().offload(*others)

    def _rows(self, rows: Rows) -> NDArray[np.float32]:
        started = perf_counter()
        found = self._in_parts(rows)
        self._seconds += perf_counter() - started
        if not self._compared and len(rows) > 1:
            self._compare_with_cpu(rows[:2], found[:2])
        if self._may_compile and self._seconds >= self.compile_after and len(rows) >= self._part:
            self._compile(rows[: self._part], found[: self._part])
        return found

    def _in_parts(self, rows: Rows) -> NDArray[np.float32]:
        while True:
            try:
                parts = [self._queue(rows[at : at + self._part]) for at in range(0, len(rows), self._part)]
                return torch.cat(parts).cpu().numpy() if parts else self._run_directly(rows)
            except RuntimeError as error:
                if not out_of_memory(error) or self._part == 1:
                    raise
            self._part = max(1, self._part // 2)  # only now is the error gone, whose traceback holds tensors
            self._compiled, self._may_compile = None, False
            free_unused(self._device)

    def _queue(self, rows: Rows) -> Tensor:
        """Queue the copy and the computation of a part, (n, width) on the device."""
        host = torch.empty(rows.shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        host.numpy()[:] = rows
        batch = host.to(self._device, non_blocking=True)  # torch keeps pinned memory until the copy is done
        if self._compiled is not None and len(rows) == self._part:
            return self._compiled(batch)
        return self._forward(batch)

    def _compare_with_cpu(self, rows: Rows, found: NDArray[np.float32]) -> None:
        self._compared = True
        assert self._network is not None, "closed"
        with torch.inference_mode():
            self._network.to("cpu")
            try:
                expected = self._network(torch.tensor(rows)).numpy()
            finally:
                self._network.to(self._device)
        try:
            _require_same(found, expected, self._precision)
        except ValueError as error:
            raise DeviceError(
                f"{self._name} does not compute as the CPU does ({error}); choose --device cpu"
            ) from None

    def _compile(self, rows: Rows, expected: NDArray[np.float32]) -> None:
        """Compile for parts of this size, if that gives the same vectors."""
        self._may_compile = False
        try:
            compiled: Any = torch.compile(self._network, mode="reduce-overhead", dynamic=False)

            def forward(batch: Tensor) -> Tensor:
                with inference_context(self._device, self._precision):
                    rows: Tensor = compiled(batch)
                return rows.clone()  # its memory belongs to the graph, whose next call overwrites it

            self._compiled = forward
            _require_same(self._in_parts(rows), expected, self._precision)
        except Exception as error:  # whatever a compiler may raise: the uncompiled network goes on
            self._compiled = None
            log.warning("torch.compile is not used, so encoding takes longer: %s", _first_line(error))


def _require_same(found: NDArray[np.float32], expected: NDArray[np.float32], precision: str) -> None:
    """Raise `ValueError` unless rows agree in direction."""
    cosines = functional.cosine_similarity(torch.from_numpy(found), torch.from_numpy(expected))
    lowest = float(cosines.min())
    if not lowest >= _SAME[precision]:  # written this way, NaN is refused too
        raise ValueError(f"vectors agree to a cosine of {lowest:.4f} only")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
