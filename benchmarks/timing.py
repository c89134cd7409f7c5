"""What the benchmarks share: several ways taking turns in one run, where it ran, and a Markdown table.

seconds = interleaved({"HF": lambda: hf(batch), "ours": lambda: ours(batch)})
print(machine("torch", "transformers"))
print(table(*compared(seconds, reference="HF", count=32, unit="images/s")))
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROUNDS = 5


def time_interleaved(
    ways: Mapping[str, Callable[[], object]],
    *,
    rounds: int = ROUNDS,
    warm_up: int = 1,
    synchronise: Callable[[], object] = lambda: None,
) -> dict[str, NDArray[np.float64]]:
    """(rounds,) seconds of each way. In each round every way runs once, and another one is first.

    Every other round goes backwards, so that none always follows the same one and what that leaves behind.
    `warm_up` rounds come before them and do not count. `synchronise` waits until the device has done what
    it was given: before a way, which so pays for nobody else, and as a part of it.
    """
    names = list(ways)
    seconds = {name: np.empty(rounds) for name in names}
    for number in range(-warm_up, rounds):
        first = number % len(names)
        turns = names[first:] + names[:first]
        for name in turns if number % 2 else reversed(turns):
            synchronise()
            started = time.perf_counter()
            ways[name]()
            synchronise()
            taken = time.perf_counter() - started
            if number >= 0:
                seconds[name][number] = taken
    return seconds


def speedups(seconds: Mapping[str, NDArray[np.float64]], reference: str) -> dict[str, float]:
    """How many times as fast as `reference` each way is: the median of the rounds' own ratios.

    Within a round the machine is the same for all, so these wander less than ratios of medians.
    """
    return {name: float(np.median(seconds[reference] / taken)) for name, taken in seconds.items()}


def comparison_rows(
    seconds: Mapping[str, NDArray[np.float64]],
    *,
    reference: str,
    count: float = 1.0,
    unit: str = "ms",
    notes: Mapping[str, Sequence[object]] | None = None,
    columns: Sequence[str] = (),
) -> tuple[list[str], list[list[str]]]:
    """Header and rows for `table`: each way's median, its ratio to `reference`, and its `notes`.

    The unit "ms" is milliseconds a piece of `count` pieces; any other is pieces a second. `columns` are the
    names of what the notes say.
    """
    times = speedups(seconds, reference)
    rows = []
    for name, taken in seconds.items():
        piece = float(np.median(taken)) / count
        figure = 1000 * piece if unit == "ms" else 1 / piece
        rows.append(
            [name, format_figure(figure), f"{times[name]:.2f}", *map(str, (notes or {}).get(name, ()))]
        )
    return ["", unit, f"× {reference}", *columns], rows


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """As Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def format_figure(figure: float) -> str:
    """With three digits that say something, and never fewer than the whole number."""
    return f"{figure:.{max(0, 2 - int(np.floor(np.log10(abs(figure)))))}f}" if figure else "0"


def describe_machine(*packages: str) -> str:
    """One line: the processor and its cores, the system, Python, and the versions of `packages`."""
    system = f"{platform.system()}, Python {platform.python_version()}"
    named = [f"{package} {_version(package)}" for package in packages]
    return ", ".join([f"{available_cores()} cores of {_processor()}", system, *named])


def available_cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not here)"


def _processor() -> str:
    """Its name, and which of the matrix instructions that decide about bf16 it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name, flags = facts.get("model name", platform.machine()), facts.get("flags", "").split()
    kinds = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "avx512f": "AVX-512", "avx2": "AVX2"}
    return f"{name} ({next((kind for flag, kind in kinds.items() if flag in flags), 'no AVX2')})"


if __name__ == "__main__":
    print(describe_machine("torch", "numpy"))
