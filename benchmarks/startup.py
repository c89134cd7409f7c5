"""How long commands take to answer: whole processes from their start, on a large library.

    python -m benchmarks.large_library FOLDER      (once)
    python -m benchmarks.startup FOLDER [--rounds 5]

`--help`, a search with a photo that the library knows, and with one that it does not, compared with Python
alone and a bare `import torch`. They take turns; medians.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from benchmarks.large_library import COUNT, make_photos, photo_path
from benchmarks.timing import ROUNDS, describe_machine, markdown_table, time_interleaved
from vitmae_search.library import Library

COMMAND = (sys.executable, "-P", "-m", "vitmae_search")


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args()
    photos = count_photos(chosen.folder / "library")
    print(describe_machine("torch", "sqlalchemy", "faiss-cpu"))
    print(f"\nA library of {photos:,} photos.\n")
    print(report(measure(chosen.folder, chosen.rounds)))


def measure(folder: Path, rounds: int, warm_up: int = 1) -> dict[str, NDArray[np.float64]]:
    """Time each process.

    Args:
        folder: The folder in which `large_library` made a library.
        rounds: Timed rounds.
        warm_up: Rounds before them.

    Returns:
        (rounds,) seconds of each process.
    """
    with tempfile.TemporaryDirectory() as name:
        make_photos(Path(name), 1, first=10 * COUNT)
        known, unknown = photo_path(folder / "photos", 0), photo_path(Path(name), 10 * COUNT)
        environment = process_environment(Path(name))
        library = ("--library", str(folder / "library"))
        commands = {
            "Python alone": (sys.executable, "-c", "pass"),
            "import torch": (sys.executable, "-c", "import torch"),
            "--help": (*COMMAND, "--help"),
            "search, a known photo": (*COMMAND, "search", str(known), *library),
            "search, another photo": (*COMMAND, "search", str(unknown), *library),
        }
        variants = {name: partial(run_process, words, environment) for name, words in commands.items()}
        return time_interleaved(variants, rounds=rounds, warm_up=warm_up)


def report(seconds: Mapping[str, NDArray[np.float64]]) -> str:
    """A table of the medians, and what searches take beyond `import torch`."""
    above = {name: float(np.median(column - seconds["import torch"])) for name, column in seconds.items()}
    rows = [
        (name, f"{np.median(column):.2f}", f"{above[name]:+.2f}" if "search" in name else "")
        for name, column in seconds.items()
    ]
    return markdown_table(("process", "seconds", "above `import torch`, s"), rows)


def count_photos(library: Path) -> int:
    """How many photos the library has. Exits with a message if there are none."""
    with Library.open(library) as opened:
        photos = opened.status().photos
    if not photos:
        sys.exit(
            f"{library} has no photos; make it with: python -m benchmarks.large_library {library.parent}"
        )
    return photos


def process_environment(folder: Path) -> dict[str, str]:
    """An environment that hides the user's data, cache and plugins, and keeps new ones in `folder`.

    Compiled Python files are kept there, as they are beside an installed package's.
    """
    root = str(Path(__file__).resolve().parents[1])
    own = {name: str(folder / name) for name in ("data", "cache", "plugins")}
    named = {f"VITMAE_SEARCH_{name.upper()}": path for name, path in own.items()}
    python = {"PYTHONPATH": root, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    outer = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**outer, **named, **python}


@dataclass(frozen=True, slots=True)
class FinishedProcess:
    """A process that succeeded: its output and its peak memory."""

    output: str
    megabytes: float


def run_process(words: Sequence[str], environment: Mapping[str, str]) -> FinishedProcess:
    """Run a process to its end.

    Args:
        words: The command.
        environment: Its environment variables.

    Raises:
        RuntimeError: It failed; the message is what it wrote to stderr.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(words, env=dict(environment), stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said, complaint = (_read_from_start(stream) for stream in (output, errors))
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)}: {complaint}")
    kilobytes = usage.ru_maxrss / (1000 if sys.platform == "darwin" else 1)
    return FinishedProcess(said, kilobytes * 1.024 / 1000)


def _read_from_start(stream: IO[bytes]) -> str:
    """All that was written to the stream."""
    stream.seek(0)
    return stream.read().decode()


if __name__ == "__main__":
    main()
