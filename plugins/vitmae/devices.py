"""The arithmetic on a device, its memory, and what it is called."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

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
