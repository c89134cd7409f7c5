"""What `index --ray local` costs beside a plain run on the same machine: whole runs, taking turns.

    python -m benchmarks.ray_overhead [--photos FOLDER] [--count 1000] [--embedder vitmae] [--rounds 1]

A cluster on one machine can only be slower: both use the same cores. Seconds until the first photo came back
(joining, starting workers, their first block), from then until all were recorded, and at the end (the vector
index). Without FOLDER the photos are synthetic, 500 × 375.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.synthetic_photos import SMALL, make_photos
from benchmarks.timing import describe_machine, markdown_table

_INDEX = """
import sys, time
from vitmae_search import Library
photos, folder, embedder, ray = sys.argv[1:]
first = {}
with Library.open(folder, embedder=embedder) as library:
    started = time.perf_counter()
    report = library.index(
        photos, ray=ray or None, on_progress=lambda now: first.setdefault(now.phase, time.perf_counter())
    )
    ended = time.perf_counter()
assert report.added, report
print(first["indexing"] - started, first["finishing"] - first["indexing"], ended - first["finishing"])
"""


def main() -> None:
    """Print a table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, metavar="FOLDER")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--embedder", default="vitmae")
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args()
    kinds = {"plain": "", "--ray local": "local"}
    found: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        photos = chosen.photos or home / "photos"
        if chosen.photos is None:
            make_photos(photos, SMALL, chosen.count)
        for _ in range(chosen.rounds):
            for kind, ray in kinds.items():
                found[kind].append(index(photos, home / "library", chosen.embedder, ray))
    print(describe_machine("ray", "torch"), "\n")
    medians = {kind: np.median(np.array(seconds), axis=0) for kind, seconds in found.items()}
    rows = [
        [kind, *(f"{part:.1f}" for part in parts), f"{parts.sum():.1f}", f"{ratio:.2f}"]
        for kind, parts in medians.items()
        for ratio in [parts.sum() / medians["plain"].sum()]
    ]
    header = ["run", "until the first photo, s", "until the last, s", "vector index, s", "all, s", "ratio"]
    print(markdown_table(header, rows))


def index(photos: Path, library: Path, embedder: str, ray: str) -> list[float]:
    """Index a folder into a new library, in a process, and return the seconds of its three parts.

    Args:
        photos: The folder.
        library: Where the library is made, and deleted.
        embedder: The plugin.
        ray: As for `Library.index`; "" is without.
    """
    shutil.rmtree(library, ignore_errors=True)
    ran = subprocess.run(
        [sys.executable, "-c", _INDEX, photos, library, embedder, ray],
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(word) for word in ran.stdout.split()[-3:]]


if __name__ == "__main__":
    main()
