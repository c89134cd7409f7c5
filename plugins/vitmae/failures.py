"""What goes wrong on a device, told apart by what torch raises, and said to people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vitmae_search.errors import DeviceError

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
