"""Where a device's time goes: by kind of kernel, and the longest kernels."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.devices import synchronizer

KINDS = {
    "attention": r"flash|fmha|sdpa|attention|softmax",
    "products": r"gemm|gemv|nvjet|cutlass|cublas|splitk|\bmm\b|addmm|matmul|linear|convolution",
    "norms and sums, compiled": r"triton",
    "copies to and from the host": r"memcpy (htod|dtoh)",
    "copies and look-ups": r"memcpy|memset|copy|\bcat|gather|index|clone|contiguous",
    "other norms, sums and GELUs": r"",
}
"""Patterns for kernel names in lower case; the first match decides. Kernel names are not documented, so the
longest kernels are listed as well, and a wrong guess can be seen."""
IDLE = "nothing ran"
_LONGEST = 8
_LETTERS = 70


@dataclass(frozen=True)
class Kernel:
    """A kernel that ran on the device; start and end in microseconds."""

    name: str
    start: float
    end: float

    @property
    def kind(self) -> str:
        """Its key in `KINDS`."""
        name = self.name.lower()
        return next(kind for kind, pattern in KINDS.items() if re.search(pattern, name))


def time_shares_table(
    runs: Mapping[str, Callable[[], object]], device: torch.device
) -> tuple[list[str], list[list[str]]]:
    """Percentages of each run's time, by kind and for single kernels.

    Args:
        runs: What is profiled, by name.
        device: Where it runs.

    Returns:
        Header and rows for `markdown_table`.
    """
    found = {name: kernels(run, device) for name, run in runs.items()}
    parts = {name: time_shares(found[name], lambda kernel: kernel.kind) for name in found}
    rows = [[kind, *(_percent(parts[name].get(kind, 0.0)) for name in found)] for kind in (*KINDS, IDLE)]
    names = {name: time_shares(found[name], lambda kernel: _shorten(kernel.name)) for name in found}
    most: dict[str, float] = defaultdict(float)
    for name, share in (pair for one in names.values() for pair in one.items()):
        most[name] = max(most[name], share)
    listed = sorted(most.keys() - {IDLE}, key=lambda name: -most[name])[:_LONGEST]
    rows += [
        [f"`{kernel}`", *(_percent(names[name].get(kernel, 0.0)) for name in found)] for kernel in listed
    ]
    return ["% of the time", *found], rows


def kernels(run: Callable[[], object], device: torch.device, times: int = 10) -> list[Kernel]:
    """Profile the kernels of `times` runs.

    Args:
        run: What is profiled.
        device: Where it runs.
        times: Runs, one after another.

    Returns:
        The kernels in the order of their starts.
    """
    synchronise = synchronizer(device)
    for _ in range(2):
        run()
    synchronise()
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiled:
        for _ in range(times):
            run()
        synchronise()
    events: Any = profiled.events()
    wanted = "CUDA" if cuda else "CPU"
    ran = [one for one in events if one.device_type.name == wanted and one.cpu_parent is None]
    return sorted((_kernel(one) for one in ran), key=lambda kernel: kernel.start)


def time_shares(ran: list[Kernel], key: Callable[[Kernel], str]) -> dict[str, float]:
    """The share of each key, and of `IDLE`, in the time from the first start to the last end.

    Where kernels overlap, the time counts for the one that started first, so that all shares sum to 1.

    Args:
        ran: Kernels in the order of their starts.
        key: Groups them.
    """
    if not ran:
        return {}
    spent: dict[str, float] = defaultdict(float)
    reached = ran[0].start
    for kernel in ran:
        spent[IDLE] += max(0.0, kernel.start - reached)
        spent[key(kernel)] += max(0.0, kernel.end - max(kernel.start, reached))
        reached = max(reached, kernel.end)
    whole = reached - ran[0].start
    return {name: taken / whole for name, taken in spent.items()} if whole else {}


def _kernel(event: Any) -> Kernel:
    return Kernel(event.name, float(event.time_range.start), float(event.time_range.end))


def _shorten(name: str) -> str:
    plain = name.removeprefix("void ").replace("|", "/").replace("`", "'")
    return plain if len(plain) <= _LETTERS else f"{plain[:_LETTERS]}…"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
