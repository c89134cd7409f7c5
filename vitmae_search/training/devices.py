"""Where a training runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from vitmae_search.errors import DeviceError


def pick_device(name: str) -> torch.device:
    """ "auto" is a CUDA device where there is one, then Apple's, then the CPU.

    Raises `DeviceError` for a device that is not here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"{name!r} is not a device: use auto, cpu, cuda, cuda:N or mps") from error
    here = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }.get(device.type, 0)
    if (device.index or 0) >= here:
        raise DeviceError(f"the device {name} is not available on this machine")
    return device


def autocast(device: torch.device) -> torch.autocast:
    """bf16 for matrix products; weights and the loss stay fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16)


def computing(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """`autocast` for "bf16", and nothing for "fp32"."""
    return autocast(device) if precision == "bf16" else nullcontext()
