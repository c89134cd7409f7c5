"""Where a training runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar

import torch

from vitmae_search.errors import DeviceError


class _Options(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> str: ...


R = TypeVar("R", bound=_Options)

_BF16_CPUS = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")


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


def pick_precision(wanted: str, device: torch.device) -> str:
    """ "auto" is bf16 where the device multiplies in it at speed, and fp32 elsewhere.

    That is a GPU that knows bf16, or a CPU with AMX or AVX512-BF16; others emulate it, slower than fp32.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = device.type == "cpu" and multiplies_in_bf16()
    return "bf16" if fast else "fp32"


def with_precision(options: R) -> R:
    """Options that say what "auto" is on their device, so that a run keeps the precision it began in."""
    return replace(options, precision=pick_precision(options.precision, pick_device(options.device)))


def multiplies_in_bf16() -> bool:
    """Whether this CPU has AMX or AVX512-BF16."""
    asked = (getattr(torch.cpu, name, None) for name in _BF16_CPUS)  # names that torch does not promise
    return any(ask is not None and ask() for ask in asked)


def autocast(device: torch.device) -> torch.autocast:
    """bf16 for matrix products; weights and the loss stay fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16)


def computing(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """`autocast` for "bf16", and nothing for "fp32"; "auto" as `pick_precision` has it."""
    return autocast(device) if pick_precision(precision, device) == "bf16" else nullcontext()
