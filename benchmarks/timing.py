"""Timing of several variants in turns, a line about the machine, and Markdown tables.

seconds = time_interleaved({"HF": lambda: hf(batch), "ours": lambda: ours(batch)})
print(describe_machine("torch", "transformers"))
print(markdown_table(*comparison_rows(seconds, reference="HF", count=32, unit="images/s")))
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
    variants: Mapping[str, Callable[[], object]],
    *,
    rounds: int = ROUNDS,
    warm_up: int = 1,
    synchronise: Callable[[], object] = lambda: None,
) -> dict[str, NDArray[np.float64]]:
    """Time variants in turns, so that changes of the machine's speed affect all of them.

    Each round runs every variant once, beginning with another one. Every other round runs backwards, so that
    no variant always follows the same one.

    Args:
        variants: What to time, by name.
        rounds: Timed rounds.
        warm_up: Rounds before them, which are not timed.
        synchronise: Waits until the device has finished its work. It is called before each variant, which so
            is not charged for others' work, and once more within its time.

    Returns:
        (rounds,) seconds of each variant.
    """
    names = list(variants)
    seconds = {name: np.empty(rounds) for name in names}
    for number in range(-warm_up, rounds):
        first = number % len(names)
        turns = names[first:] + names[:first]
        for name in turns if number % 2 else reversed(turns):
            synchronise()
            started = time.perf_counter()
            variants[name]()
            synchronise()
            taken = time.perf_counter() - started
            if number >= 0:
                seconds[name][number] = taken
    return seconds


def speedups(seconds: Mapping[str, NDArray[np.float64]], reference: str) -> dict[str, float]:
    """How many times as fast as `reference` each variant is: the median over the rounds of the ratio.

    Within a round the machine's speed is the same for all, so this varies less than a ratio of medians.

    Args:
        seconds: (rounds,) seconds of each variant, as `time_interleaved` returns them.
        reference: The name of the variant that has the value 1.
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
    """Header and rows for `markdown_table`: each variant's median, its speedup over `reference`, its notes.

    Args:
        seconds: (rounds,) seconds of each variant.
        reference: The name of the variant that has the value 1.
        count: How many items (images, queries) one run processes.
        unit: "ms" for milliseconds per item; any other name means items per second.
        notes: Further cells of each variant's row.
        columns: The names of these cells.
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
    """A Markdown table.

    Args:
        header: Names of the columns.
        rows: Their cells.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def format_figure(figure: float) -> str:
    """`figure` with three significant digits, or all digits of its integer part."""
    return f"{figure:.{max(0, 2 - int(np.floor(np.log10(abs(figure)))))}f}" if figure else "0"


def describe_machine(*packages: str) -> str:
    """One line: the processor and its cores, the system, Python, and the versions of `packages`."""
    system = f"{platform.system()}, Python {platform.python_version()}"
    named = [f"{package} {_version(package)}" for package in packages]
    return ", ".join([f"{available_cores()} cores of {_processor()}", system, *named])


def available_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not here)"


def _processor() -> str:
    """The processor's name, and its most capable vector instructions, which decide how fast bf16 is."""
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
