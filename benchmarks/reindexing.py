"""How long indexing takes when little or nothing is new in a large library: whole processes.

    python -m benchmarks.large_library FOLDER      (once)
    python -m benchmarks.reindexing FOLDER [--new 100] [--rounds 5]

On a copy of the library: all photos unchanged; the same with 100 new ones; and the 100 alone, in a new
library. They are compared with a bare walk over the folder that reads each file's size and date, which all of
them have to do. They take turns; medians, and peak memory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.large_library import COUNT, make_photos
from benchmarks.startup import COMMAND, FinishedProcess, count_photos, process_environment, run_process
from benchmarks.timing import ROUNDS, describe_machine, markdown_table, time_interleaved

BARE = "a bare walk"
WALK = """
import os, sys
def walk(folder):
    with os.scandir(folder) as entries:
        for entry in entries:
            walk(entry.path) if entry.is_dir() else entry.stat()
walk(sys.argv[1])
"""


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--new", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args()
    photos = count_photos(chosen.folder / "library")
    print(describe_machine("torch", "sqlalchemy", "faiss-cpu"))
    print(f"\nA library of {photos:,} photos; {chosen.new} new ones in each round.\n")
    seconds, megabytes = measure(chosen.folder, chosen.new, chosen.rounds)
    rows = [
        (name, f"{np.median(taken):.2f}", f"{megabytes[name]:.0f}" if name in megabytes else "")
        for name, taken in seconds.items()
    ]
    print(markdown_table(("run", "seconds", "most memory, MB"), rows))


def measure(folder: Path, new: int, rounds: int) -> tuple[dict[str, NDArray[np.float64]], dict[str, float]]:
    """Time each run.

    Args:
        folder: The folder in which `large_library` made a library; it is copied and not changed.
        new: How many new photos a round adds.
        rounds: Timed rounds.

    Returns:
        (rounds,) seconds of each run, and its peak memory in megabytes.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        runs = _Runs(folder, Path(name), new, rounds)
        runs_by_name = {
            BARE: runs.walk,
            "all unchanged": runs.unchanged,
            f"all unchanged, and {new} new": runs.added,
            f"the {new} alone, in a new library": runs.alone,
        }
        megabytes: dict[str, float] = {}

        def watched(name: str) -> None:
            taken = runs_by_name[name]().megabytes
            if name != BARE:  # a new process's figure starts at its parent's, which is more than a walk needs
                megabytes[name] = max(megabytes.get(name, 0.0), taken)

        runs_by_name[
            "all unchanged"
        ]()  # the first run loads the model, to compute the identity that is then cached
        turns = {name: partial(watched, name) for name in runs_by_name}
        return time_interleaved(turns, rounds=rounds, warm_up=0), megabytes


class _Runs:
    """The runs, each of which checks what it reports."""

    def __init__(self, folder: Path, home: Path, new: int, rounds: int) -> None:
        self._photos, self._home, self._new = folder / "photos", home, new
        self._environment = process_environment(home)
        self._library = home / "library"
        shutil.copytree(folder / "library", self._library, ignore=shutil.ignore_patterns("thumbnails"))
        folders = [home / f"new-{number}" for number in range(2 * rounds)]
        for number, fresh in enumerate(folders):
            make_photos(fresh, new, first=10 * COUNT + number * new)
        self._fresh = iter(folders)

    def walk(self) -> FinishedProcess:
        return run_process((sys.executable, "-c", WALK, str(self._photos)), self._environment)

    def unchanged(self) -> FinishedProcess:
        return self._index(self._library, self._photos, new=0)

    def added(self) -> FinishedProcess:
        return self._index(self._library, self._photos, next(self._fresh), new=self._new)

    def alone(self) -> FinishedProcess:
        fresh = next(self._fresh)
        return self._index(self._home / f"library-of-{fresh.name}", fresh, new=self._new)

    def _index(self, library: Path, *folders: Path, new: int) -> FinishedProcess:
        words = (*COMMAND, "index", *map(str, folders), "--library", str(library), "--json")
        ended = run_process(words, self._environment)
        report = json.loads(ended.output)
        assert report["added"] == new, report
        assert report["found"] == report["unchanged"] + new, report
        return ended


if __name__ == "__main__":
    main()
