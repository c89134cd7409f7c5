"""Computing batches with a network on a device, for plugins: arithmetic, memory, and what goes wrong."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitmae_search.errors import DeviceError

N = TypeVar("N", bound=nn.Module)
T = TypeVar("T")


@contextmanager
def inference_context(device: torch.device, precision: str) -> Iterator[None]:
    """Inference mode; in fp32 on CUDA without TF32, for products and for the patch projection.

    Args:
        device: The device that computes.
        precision: "bf16" or "fp32".
    """
    with torch.inference_mode():
        if precision != "fp32" or device.type != "cuda":
            yield
            return
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                yield
        finally:
            torch.set_float32_matmul_precision(before)


def free_unused(device: torch.device) -> None:
    """Return the memory that torch caches to the device."""
    if device.type == "cuda":
        gc.collect()  # a past error in a reference cycle may still hold tensors
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def device_name(device: torch.device) -> str:
    """The device's name for messages and provenance."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


_OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED", "STATUS_NOT_INITIALIZED", "DefaultCPUAllocator")
"""Parts of messages about too little memory for which torch raises a plain RuntimeError: from cuBLAS, cuDNN,
pinned memory, CUDA graphs, MPS and the CPU."""
_DEVICE_FAILURE = ("CUDA error", "CUDA driver error", "cuDNN error", "[CUDA]")


def out_of_memory(error: BaseException | None) -> bool:
    """Whether the error means too little memory, of the device or of the host."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _OUT_OF_MEMORY)


@contextmanager
def translate_device_errors(device: str) -> Iterator[None]:
    """Translate torch's errors inside the block.

    Args:
        device: The device's name, for the message.

    Raises:
        MemoryError: There is too little memory.
        DeviceError: The GPU failed.
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        if out_of_memory(error):
            raise MemoryError(reason) from error
        if _is_device_failure(error):
            raise DeviceError(
                f"{device} failed in the middle of its work ({reason}); what was finished before is kept: "
                "start again, or choose --device cpu"
            ) from error
        raise


def _is_device_failure(error: RuntimeError) -> bool:
    accelerator = getattr(torch, "AcceleratorError", None)  # new in torch 2.8
    is_accelerator_error = accelerator is not None and isinstance(error, accelerator)
    return is_accelerator_error or any(word in str(error) for word in _DEVICE_FAILURE)


class Engine(Generic[N]):
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

    def __init__(self, network: N, device: torch.device, precision: str) -> None:
        self._network: N | None = network
        self._device, self._precision = device, precision
        name = device_name(device)
        self._name = name if name == str(device) else f"{device} ({name})"
        self._lost: str | None = None
        self._offloaded = True
        self._load_weights()

    def run(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """(N, ...) uint8 to the network's (N, D), a new C-contiguous array."""
        with self._translate_errors():
            self._load_weights()
            return self._rows(rows)

    def run_network(self, network: nn.Module, rows: NDArray[Any]) -> NDArray[np.float32]:
        """As `run`, with another network on the same device.

        Args:
            network: What to compute; it may share weights with this one's.
            rows: (N, ...) uint8.
        """
        with self._translate_errors():
            network.to(self._device)  # it may have been offloaded
            return self._rows_of(network, rows)

    def run_alone(self, work: Callable[[], T]) -> T:
        """Call `work`, which uses the same device, and translate its errors in the same way."""
        with self._translate_errors():
            return work()

    def run_with_network(self, work: Callable[[N], T]) -> T:
        """Call `work` with the network, whose weights are on the device, and translate its errors."""
        with self._translate_errors():
            self._load_weights()
            assert self._network is not None, "closed"
            return work(self._network)

    def offload(self, *others: nn.Module) -> None:
        """Move the network to the host until the next call, and free the device's memory.

        Args:
            others: Modules to move as well; the caller moves them back.
        """
        if self._network is None or self._lost is not None or self._device.type == "cpu":
            return
        with self._translate_errors():
            modules: tuple[nn.Module, ...] = (self._network, *others)
            for module in modules:
                module.to("cpu")
            self._offloaded = True
            free_unused(self._device)

    def close(self) -> None:
        """Drop the network, and free the device's memory."""
        self._network = None
        with suppress(RuntimeError):  # the device may be lost
            free_unused(self._device)

    def _rows(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        return self._run_directly(rows)

    def _rows_of(self, network: nn.Module, rows: NDArray[Any]) -> NDArray[np.float32]:
        with inference_context(self._device, self._precision):
            found: Tensor = network(torch.tensor(rows, device=self._device))
        return np.ascontiguousarray(found.cpu().numpy())

    def _run_directly(self, rows: NDArray[Any]) -> NDArray[np.float32]:
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
            raise
