"""In which precision a training runs."""

from __future__ import annotations

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


R = TypeVar("R", bound=_Options)


def pick_precision(wanted: str, device: torch.device) -> str:
    """ "auto" is bf16 where the device multiplies in it, and fp32 elsewhere."""
    if wanted != "auto":
        return wanted
    return "bf16" if multiplies_in_bf16(device) else "fp32"


def with_precision(options: R) -> R:
    """Options that say what "auto" is on their device, so that a run keeps the precision it began in."""
    return replace(options, precision=pick_precision(options.precision, choose_device(options.device)))


def autocast(device: torch.device) -> torch.autocast:
    """bf16 for matrix products; weights and the loss stay fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16)


def computing(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """`autocast` for "bf16", and nothing for "fp32"; "auto" as `pick_precision` has it."""
    return autocast(device) if pick_precision(precision, device) == "bf16" else nullcontext()
