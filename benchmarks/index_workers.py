"""Indexing with 1, 2 and 4 workers, here and in another checkout: whole processes, taking turns.

    python -m benchmarks.index_workers [--photos FOLDER] [--count 2000] [--other CHECKOUT] [--rounds 3]

With the embedder `color_layout`, which takes next to no time: reading and decoding are measured. Without
FOLDER the photos are synthetic, 500 × 375. Seconds on the clock are of `Library.index` alone; seconds of
computing are of the process and all that it started, from start to end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.synthetic_photos import SMALL, make_photos
from benchmarks.timing import describe_machine, markdown_table

WORKERS = (1, 2, 4)
_INDEX = """
import sys, time
from vitmae_search import Library
photos, folder, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Library.open(folder, embedder="color_layout") as library:
    started = time.perf_counter()
    report = library.index(photos, workers=workers)
    print(time.perf_counter() - started, report.added)
"""


def main() -> None:
    """Print a table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, metavar="FOLDER")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--other", type=Path, metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    checkouts = {"this": Path.cwd()} | ({} if chosen.other is None else {"other": chosen.other})
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        photos = chosen.photos or home / "photos"
        if chosen.photos is None:
            make_photos(photos, SMALL, chosen.count)
        runs = [(checkout, workers) for workers in WORKERS for checkout in checkouts]
        found: dict[tuple[str, int], list[tuple[float, float]]] = {run: [] for run in runs}
        for _ in range(chosen.rounds):
            for checkout, workers in runs:
                found[checkout, workers].append(index(checkouts[checkout], photos, home / "library", workers))
    print(describe_machine("pillow"), "\n")
    rows = []
    for workers in WORKERS:
        medians = {checkout: np.median(found[checkout, workers], axis=0) for checkout in checkouts}
        for checkout, (seconds, computing) in medians.items():
            ratios = [f"{value:.2f} ×" for value in medians["this"] / medians[checkout]]
            rows.append((workers, checkout, f"{seconds:.1f}", ratios[0], f"{computing:.1f}", ratios[1]))
    header = ("workers", "checkout", "s", "this one", "s of computing", "this one")
    print(markdown_table(header, rows))


def index(checkout: Path, photos: Path, library: Path, workers: int) -> tuple[float, float]:
    """Index in a new process.

    Args:
        checkout: Whose code does it.
        photos: The folder.
        library: Made new.
        workers: How many photos are read at a time.

    Returns:
        Seconds on the clock, and of computing.
    """
    shutil.rmtree(library, ignore_errors=True)
    command = [sys.executable, "-c", _INDEX, os.fspath(photos), os.fspath(library), str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=checkout)
    assert process.stdout is not None
    seconds = float(process.stdout.read().split()[0])
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = code
    process.stdout.close()
    if code:
        raise SystemExit(f"{checkout}: failed")
    return seconds, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
