"""Precision, memory and errors of the device that encodes."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vitmae_search.errors import DeviceError
from vitmae_search.vitmae import multiplies_in_bf16

log = logging.getLogger(__name__)


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


def choose_precision(wanted: str, device: torch.device) -> str:
    """Resolve the precision to "fp32" or "bf16".

    "auto" is bf16 where the hardware multiplies in it.

    Args:
        wanted: "auto", "fp32" or "bf16".
        device: The device that computes.
    """
    if wanted != "auto":
        if wanted == "bf16" and device.type == "cpu" and not multiplies_in_bf16(device):
            log.warning("This CPU has no bf16 instructions, so bf16 is slower here than fp32")
        return wanted
    return "bf16" if multiplies_in_bf16(device) else "fp32"


_INT8_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")


def warn_without_int8(device: torch.device) -> None:
    """Log a warning where int8 gains nothing: on a CPU of Intel's or AMD's without instructions for it."""
    known: dict[str, Any] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # older versions of torch have none
    if device.type == "cpu" and "avx2" in known and not any(known.get(name) for name in _INT8_INSTRUCTIONS):
        log.warning("This CPU has no VNNI instructions, so int8 is no faster here than fp32")
