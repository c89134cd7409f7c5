"""How long a run takes that finds little or nothing new in a large library: whole processes.

    python -m benchmarks.large_library FOLDER      (once)
    python -m benchmarks.reindexing FOLDER [--new 100] [--rounds 5]

On a copy of the library: all photos unchanged; the same with 100 new ones beside them; and the 100 alone, in
a new library. Beside them a bare walk over the folder that asks for each file's size and date, which is the
least that any of them must do. They take turns; medians, and the most memory.
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
        (way, f"{np.median(taken):.2f}", f"{megabytes[way]:.0f}" if way in megabytes else "")
        for way, taken in seconds.items()
    ]
    print(markdown_table(("run", "seconds", "most memory, MB"), rows))


def measure(folder: Path, new: int, rounds: int) -> tuple[dict[str, NDArray[np.float64]], dict[str, float]]:
    """(rounds,) seconds of each run, and the most memory that one took, in megabytes.

    `folder` is one of `large_library`, whose library is copied and left as it is.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        runs = _Runs(folder, Path(name), new, rounds)
        ways = {
            BARE: runs.walk,
            "all unchanged": runs.unchanged,
            f"all unchanged, and {new} new": runs.added,
            f"the {new} alone, in a new library": runs.alone,
        }
        megabytes: dict[str, float] = {}

        def watched(way: str) -> None:
            taken = ways[way]().megabytes
            if way != BARE:  # a process counts what its parent had, which is more than that one needs
                megabytes[way] = max(megabytes.get(way, 0.0), taken)

        ways["all unchanged"]()  # the first one loads the model, to know which space is the library's
        turns = {way: partial(watched, way) for way in ways}
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
