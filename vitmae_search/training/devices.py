"""How training runs on its device: precision, attention implementation, and compiled layers."""

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


def resolve_precision(precision: str, device: torch.device) -> str:
    """Replace "auto" by "bf16" where the device multiplies in bf16, else by "fp32".

    Args:
        precision: "auto", "bf16" or "fp32".
        device: The device that trains.
    """
    if precision != "auto":
        return precision
    return "bf16" if multiplies_in_bf16(device) else "fp32"


def resolve_attention(attention: str, device: torch.device, precision: str) -> str:
    """Replace "auto" by "eager" for bf16 on a CPU, else by "sdpa".

    On a CPU plain matrix products train faster in bf16 than torch's fused kernel, and in fp32 slower.

    Args:
        attention: "auto", "eager" or "sdpa".
        device: The device that trains.
        precision: "bf16", "fp32", or "auto" as in `resolve_precision`.
    """
    if attention != "auto":
        return attention
    in_bf16 = resolve_precision(precision, device) == "bf16"
    return "eager" if device.type == "cpu" and in_bf16 else "sdpa"


def resolve_auto(options: R) -> R:
    """The options with "auto" replaced by what it means on their device, so that a resumed run keeps it."""
    device = choose_device(options.device)
    return replace(
        options,
        precision=resolve_precision(options.precision, device),
        attention=resolve_attention(options.attention, device, options.precision),
    )


def should_compile(device: torch.device) -> bool:
    """Whether compiled layers are worth a minute of compiling: on a GPU where torch has its compiler.

    Many kernels of a layer only read and write tokens; compiled, several of them become one.
    """
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


def precision_context(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Autocast to bf16, or a context that does nothing.

    Autocast multiplies matrices in bf16; weights and the loss stay fp32.

    Args:
        device: The device that computes.
        precision: "bf16", "fp32", or "auto" as in `resolve_precision`.
    """
    if resolve_precision(precision, device) == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
