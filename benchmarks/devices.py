"""Devices: choosing one, describing it, timing on it, and its memory.

Everything works on a CPU too, so that benchmarks of a GPU can be tried without one. As a program it describes
a device: `python -m benchmarks.devices cuda`.
"""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from benchmarks.timing import describe_machine
from vitmae_search.errors import DeviceError
from vitmae_search.vitmae import choose_device

_WARM_UP = 0.3
"""Seconds of work before a timing, in which a GPU raises its clocks."""
_FACTS = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu"


def require_device(wanted: str) -> torch.device:
    """The device of this name. Exits with code 1 and one sentence if it is not available."""
    try:
        return choose_device(wanted)
    except DeviceError as error:
        raise SystemExit(str(error)) from error


def describe_device(device: torch.device) -> str:
    """Lines of Markdown: the device, its driver and state, the machine, and versions."""
    lines = [describe_machine("torch", "triton", "transformers", "timm")]
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        memory = f"{properties.total_memory / 2**30:.1f} GiB"
        processors = (
            f"{properties.multi_processor_count} multiprocessors, sm_{properties.major}{properties.minor}"
        )
        cudnn: Any = torch.backends.cudnn
        versions = f"CUDA {torch.version.cuda}, cuDNN {cudnn.version()}"
        lines = [
            f"**{properties.name}**, {memory}, {processors}; {versions}",
            f"as found: {device_state(device)}",
            *lines,
        ]
    return "\n".join(f"- {line}" for line in lines)


def device_state(device: torch.device) -> str:
    """Clocks, power and temperature. They are only read."""
    tool = shutil.which("nvidia-smi")
    if device.type != "cuda" or tool is None:
        return "not told (no nvidia-smi)"
    which = f"--id=GPU-{torch.cuda.get_device_properties(device).uuid}"
    words = [tool, which, f"--query-gpu={_FACTS}", "--format=csv,noheader"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    if said.returncode:
        return f"not told ({(said.stdout + said.stderr).strip()})"
    return ", ".join(
        f"{name} {fact.strip()}"
        for name, fact in zip(_FACTS.split(","), said.stdout.split(","), strict=False)
    )


def synchronizer(device: torch.device) -> Callable[[], object]:
    """A function that waits until the device has finished its work."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def median_seconds(work: Callable[[], object], device: torch.device, *, repeats: int = 30) -> float:
    """Median time of `work`, by the device's clock. Calls are queued without waiting in between.

    Args:
        work: Enqueues some work.
        device: Where it runs.
        repeats: Timed calls.
    """
    synchronise = synchronizer(device)
    started = time.perf_counter()
    while time.perf_counter() - started < (_WARM_UP if device.type == "cuda" else 0.01):
        work()
        synchronise()
    marks = [_timestamp(device)]
    for _ in range(repeats):
        work()
        marks.append(_timestamp(device))
    synchronise()
    return float(np.median([_elapsed(*pair) for pair in pairwise(marks)]))


def _timestamp(device: torch.device) -> Any:
    if device.type != "cuda":
        return time.perf_counter()
    cuda: Any = torch.cuda
    event = cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _elapsed(first: Any, second: Any) -> float:
    """Seconds between two timestamps."""
    return float(second - first if isinstance(first, float) else first.elapsed_time(second) / 1e3)


def product_rate(device: torch.device, side: int) -> float:
    """FLOP/s of the product of two square matrices in bf16.

    Args:
        device: Where it runs.
        side: Rows and columns.
    """
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return float(2 * side**3 / median_seconds(lambda: left @ right, device))


class PeakMemory:
    """Peak memory of a device in GiB, beyond what was reserved when this was made.

    Counted is what torch reserves, so that the memory of CUDA graphs is included.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = self._held()

    def peak(self, work: Callable[[], object]) -> float:
        """Peak memory while `work` runs, in GiB, including what was allocated for it before; 0 on a CPU."""
        self._held()
        if self._device.type != "cuda":
            work()
            return 0.0
        torch.cuda.reset_peak_memory_stats(self._device)
        work()
        synchronizer(self._device)()
        return float(torch.cuda.max_memory_reserved(self._device) - self._before) / 2**30

    def _held(self) -> int:
        if self._device.type != "cuda":
            return 0
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved(self._device)


if __name__ == "__main__":
    print(describe_device(require_device(sys.argv[1])))
