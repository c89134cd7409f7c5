"""The arithmetic on a device, its memory, and what it is called.

What goes wrong on a device, told apart by what torch raises, and said to people.

Which precision "auto" is: bf16 where the hardware multiplies in it and was not measured to be slower.
"""

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

CAPTURING = threading.Lock()
"""One CUDA graph is made at a time: not while another thread compiles, or waits for the whole device."""


@contextmanager
def computing(device: torch.device, precision: str) -> Iterator[None]:
    """No gradients, and arithmetic as `precision` says.

    bf16 on a CPU and on CUDA is a prepacked encoder's own. On other GPUs it is autocast, which is the same
    but for its speed: products in bf16, norms and the residual stream in fp32. fp32 on CUDA really is: cuDNN
    would round the patch projection's inputs to TF32 if left alone, and products where the process lets it.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if precision == "bf16" and not prepacks(device, precision):
            stack.enter_context(torch.autocast(device.type, dtype=torch.bfloat16))
        elif precision == "fp32" and device.type == "cuda":
            exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
            stack.enter_context(exact)
            stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("highest")
        yield


def prepacks(device: torch.device, precision: str) -> bool:
    """Whether an encoder's weights are laid out anew for this, and are no longer fp32."""
    return precision == "bf16" and device.type in ("cpu", "cuda")


def free_unused(device: torch.device) -> None:
    """Give back the memory that torch keeps for later."""
    if device.type == "cuda":
        gc.collect()  # an error that went by may still hold the tensors of what raised it, in a circle
        with CAPTURING:
            torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def device_name(device: torch.device) -> str:
    """The device as a person knows it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


_FULL = ("out of memory", "ALLOC_FAILED", "STATUS_NOT_INITIALIZED", "DefaultCPUAllocator")
"""Memory that is short where torch has no class for it: cuBLAS's and cuDNN's (who find none to begin with),
pinned, a graph's, Apple's, the CPU's."""
_FAILED = ("CUDA error", "CUDA driver error", "cuDNN error", "[CUDA]")


def out_of_memory(error: BaseException | None) -> bool:
    """Whether memory was short, of the device or of the host."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _FULL)


@contextmanager
def telling(device: str) -> Iterator[None]:
    """Raise MemoryError for too little memory, `DeviceError` for a GPU that failed, called `device`."""
    try:
        yield
    except RuntimeError as error:
        said = str(error).strip().partition("\n")[0]
        if out_of_memory(error):
            raise MemoryError(said) from error
        if _failed(error):
            raise DeviceError(
                f"{device} failed in the middle of its work ({said}); what was finished before is kept: "
                "start again, or choose --device cpu"
            ) from error
        raise


def _failed(error: RuntimeError) -> bool:
    accelerator = getattr(torch, "AcceleratorError", None)  # new in torch 2.8
    known = accelerator is not None and isinstance(error, accelerator)
    return known or any(word in str(error) for word in _FAILED)


PRECISION_NAME = "cpu-precision.json"
_ROUNDS = 5
_WORTH = 1.2
"""How many times as fast bf16 must be to take the place of fp32."""


def choose_precision(wanted: str, device: torch.device) -> str:
    """fp32 or bf16. "auto" is told from what the hardware says of itself, and what is remembered of it."""
    if wanted != "auto":
        if wanted == "bf16" and device.type == "cpu" and not multiplies_in_bf16(device):
            log.warning("This CPU has no bf16 instructions, so bf16 is slower here than fp32")
        return wanted
    if not multiplies_in_bf16(device):
        return "fp32"
    slower = device.type == "cpu" and load_cached(PRECISION_NAME).get(_key()) == "fp32"
    return "fp32" if slower else "bf16"


def remember_precision() -> None:
    """Measure once, some hundredths of a second, which precision is the faster one on this CPU."""
    if not multiplies_in_bf16(torch.device("cpu")) or _key() in load_cached(PRECISION_NAME):
        return
    times = _product_seconds(torch.float32) / _product_seconds(torch.bfloat16)
    precision = "bf16" if times >= _WORTH else "fp32"
    save_cached(PRECISION_NAME, _key(), precision, "the precision that is fastest here")


def _product_seconds(dtype: torch.dtype) -> float:
    """The median time of a ViT-B's widest product over the tokens of an image and a bit."""
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
