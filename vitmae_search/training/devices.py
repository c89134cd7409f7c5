"""How a training runs on its device: precision, attention, and whether its layers are compiled."""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar

import torch

from vitmae_search.vitmae import choose_device, multiplies_in_bf16


class _Options(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def attention(self) -> str: ...


R = TypeVar("R", bound=_Options)


def pick_precision(wanted: str, device: torch.device) -> str:
    """ "auto" is bf16 where the device multiplies in it, and fp32 elsewhere."""
    if wanted != "auto":
        return wanted
    return "bf16" if multiplies_in_bf16(device) else "fp32"


def pick_attention(wanted: str, device: torch.device) -> str:
    """ "auto" is the fused kernel, but on a CPU, where plain products train twice as fast in bf16."""
    if wanted != "auto":
        return wanted
    return "eager" if device.type == "cpu" else "sdpa"


def settled(options: R) -> R:
    """Options that say what "auto" is on their device, so that a run keeps what it began with."""
    device = choose_device(options.device)
    return replace(
        options,
        precision=pick_precision(options.precision, device),
        attention=pick_attention(options.attention, device),
    )


def compiles(device: torch.device) -> bool:
    """Whether compiled layers are worth a minute's wait there: on a GPU for which torch has its compiler.

    Many of a layer's kernels only read and write tokens. Compiled, several of them are one.
    """
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


def autocast(device: torch.device) -> torch.autocast:
    """bf16 for matrix products; weights and the loss stay fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16)


def computing(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """`autocast` for "bf16", and nothing for "fp32"; "auto" as `pick_precision` has it."""
    return autocast(device) if pick_precision(precision, device) == "bf16" else nullcontext()
