"""Which precision "auto" is: bf16 where the hardware multiplies in it and was not measured to be slower."""

from __future__ import annotations

import statistics
import time

import torch
from torch.nn import functional

from vitmae_search.measurement_cache import machine_key, recall, remember
from vitmae_search.vitmae import multiplies_in_bf16

PRECISION_NAME = "cpu-precision.json"
_ROUNDS = 5
_WORTH = 1.2
"""How many times as fast bf16 must be to take the place of fp32."""


def choose_precision(wanted: str, device: torch.device) -> str:
    """fp32 or bf16. "auto" is told from what the hardware says of itself, and what is remembered of it."""
    if wanted != "auto":
        return wanted
    if not multiplies_in_bf16(device):
        return "fp32"
    slower = device.type == "cpu" and recall(PRECISION_NAME).get(_key()) == "fp32"
    return "fp32" if slower else "bf16"


def remember_precision() -> None:
    """Measure once, some hundredths of a second, which precision is the faster one on this CPU."""
    if not multiplies_in_bf16(torch.device("cpu")) or _key() in recall(PRECISION_NAME):
        return
    times = _product_seconds(torch.float32) / _product_seconds(torch.bfloat16)
    precision = "bf16" if times >= _WORTH else "fp32"
    remember(PRECISION_NAME, _key(), precision, "the precision that is fastest here")


def _product_seconds(dtype: torch.dtype) -> float:
    """The median time of a ViT-B's widest product over the tokens of an image and a bit."""
    with torch.inference_mode():
        tokens, weight = torch.ones(256, 768, dtype=dtype), torch.ones(3072, 768, dtype=dtype)
        seconds = []
        for _ in range(1 + _ROUNDS):
            started = time.perf_counter()
            functional.linear(tokens, weight)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def _key() -> str:
    return machine_key(torch.__version__)
