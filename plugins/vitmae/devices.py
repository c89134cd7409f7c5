"""Precision, memory and errors of the device that encodes."""

from __future__ import annotations

import gc
import logging
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.nn import functional

from vitmae_search.errors import DeviceError
from vitmae_search.measurement_cache import load_cached, machine_key, save_cached
from vitmae_search.vitmae import multiplies_in_bf16

log = logging.getLogger(__name__)

CUDA_GRAPH_LOCK = threading.Lock()
"""Held while a CUDA graph is captured, and by what must not run meanwhile: compiling, freeing memory."""


@contextmanager
def inference_context(device: torch.device, precision: str) -> Iterator[None]:
    """Inference mode in a precision.

    bf16 on a CPU and on CUDA needs nothing here: a prepacked encoder computes in it. On other GPUs it is
    autocast, which differs only in speed. In fp32 on CUDA, TF32 is switched off for matrix products and for
    cuDNN, which would otherwise use it for the patch projection.

    Args:
        device: The device that computes.
        precision: "bf16" or "fp32".
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if precision == "bf16" and not uses_prepacked_weights(device, precision):
            stack.enter_context(torch.autocast(device.type, dtype=torch.bfloat16))
        elif precision == "fp32" and device.type == "cuda":
            exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
            stack.enter_context(exact)
            stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("highest")
        yield


def uses_prepacked_weights(device: torch.device, precision: str) -> bool:
    """Whether an encoder's fp32 weights are replaced by prepacked bf16 weights.

    Args:
        device: The device that computes.
        precision: "bf16" or "fp32".
    """
    return precision == "bf16" and device.type in ("cpu", "cuda")


def free_unused(device: torch.device) -> None:
    """Return the memory that torch caches to the device."""
    if device.type == "cuda":
        gc.collect()  # a past error in a reference cycle may still hold tensors
        with CUDA_GRAPH_LOCK:
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


PRECISION_NAME = "cpu-precision.json"
_ROUNDS = 5
_MIN_SPEEDUP = 1.2
"""How many times as fast as fp32 bf16 must be to be chosen."""


def choose_precision(wanted: str, device: torch.device) -> str:
    """Resolve the precision to "fp32" or "bf16".

    "auto" is bf16 where the hardware multiplies in it and was not measured to be slower in it.

    Args:
        wanted: "auto", "fp32" or "bf16".
        device: The device that computes.
    """
    if wanted != "auto":
        if wanted == "bf16" and device.type == "cpu" and not multiplies_in_bf16(device):
            log.warning("This CPU has no bf16 instructions, so bf16 is slower here than fp32")
        return wanted
    if not multiplies_in_bf16(device):
        return "fp32"
    slower = device.type == "cpu" and load_cached(PRECISION_NAME).get(_key()) == "fp32"
    return "fp32" if slower else "bf16"


def measure_precision() -> None:
    """Measure, once on each machine, which precision is faster on this CPU; takes under a second."""
    if not multiplies_in_bf16(torch.device("cpu")) or _key() in load_cached(PRECISION_NAME):
        return
    times = _matmul_seconds(torch.float32) / _matmul_seconds(torch.bfloat16)
    precision = "bf16" if times >= _MIN_SPEEDUP else "fp32"
    save_cached(PRECISION_NAME, _key(), precision, "the precision that is fastest here")


def _matmul_seconds(dtype: torch.dtype) -> float:
    """Median time of a ViT-B's widest matrix product over 256 tokens."""
    with torch.inference_mode():
        tokens, weight = torch.ones(256, 768, dtype=dtype), torch.ones(3072, 768, dtype=dtype)
        seconds = []
        for _ in range(1 + _ROUNDS):
            started = time.perf_counter()
            functional.linear(tokens, weight)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def _key() -> str:
    return machine_key(torch.__version__)
