"""The precision of the device that encodes."""

from __future__ import annotations

import logging
from typing import Any

import torch

from vitmae_search.vitmae import multiplies_in_bf16

log = logging.getLogger(__name__)


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
