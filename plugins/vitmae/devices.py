"""Which device a run gets, and the arithmetic on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from vitmae_search.errors import DeviceError


def choose_device(wanted: str) -> torch.device:
    """auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps. Raises `DeviceError` for a missing one."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wanted == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and not cuda:
        raise DeviceError(f"{wanted}: no CUDA device can be used here; choose --device cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"{wanted}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    if device.type == "mps" and not mps:
        raise DeviceError("mps: no Apple GPU can be used here; choose --device cpu or auto")
    return device


@contextmanager
def computing(device: torch.device, precision: str) -> Iterator[None]:
    """No gradients, and arithmetic as `precision` says.

    bf16 on a GPU is autocast: matrix products in bf16 over fp32 weights, while norms and the residual
    stream stay in fp32, which keeps vectors closer than a model made bf16 throughout; on a CPU the model
    is prepacked, which is the same but for its speed. fp32 on CUDA really is: cuDNN would round the patch
    projection's inputs to TF32 if left alone. Raises MemoryError on the CPU too.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if precision == "bf16" and device.type != "cpu":
            stack.enter_context(torch.autocast(device.type, dtype=torch.bfloat16))
        elif device.type == "cuda":
            exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
            stack.enter_context(exact)
        try:
            yield
        except RuntimeError as error:
            if "DefaultCPUAllocator" in str(error):  # torch has no class for this on the CPU
                raise MemoryError(str(error).splitlines()[0]) from error
            raise


def device_name(device: torch.device) -> str:
    """The device as a person knows it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
