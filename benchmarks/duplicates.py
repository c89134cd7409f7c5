"""Near-duplicates among many vectors: time, and memory beside the vectors.

    python -m benchmarks.duplicates [--count 100000] [--dimension 256]

Vectors are random; one in twenty is a changed copy of another one, with a score of about 0.96.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import describe_machine, markdown_table
from vitmae_search.search.duplicates import connected, members

SCORES = (0.8, 0.85, 0.9, 0.95, 0.98)


def changed_copies(count: int, dimension: int) -> NDArray[np.float32]:
    """(count, dimension) unit vectors, of which the last twentieth are changed copies of the first ones.

    Args:
        count: How many.
        dimension: Numbers in a vector.
    """
    random = np.random.default_rng(0)
    vectors = random.standard_normal((count, dimension), dtype=np.float32)
    copies = max(1, count // 20)
    noise = random.standard_normal((copies, dimension), dtype=np.float32)
    vectors[-copies:] = vectors[:copies] + 0.3 * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def measure(count: int, dimension: int) -> dict[str, float]:
    """Seconds, MiB beside the vectors, and the groups at the lowest of `SCORES`.

    Args:
        count: How many vectors.
        dimension: Numbers in a vector.
    """
    vectors = changed_copies(count, dimension)
    tracemalloc.start()
    start = time.perf_counter()
    labels = connected(vectors, SCORES)
    seconds = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"seconds": seconds, "MiB": peak / 2**20, "groups": len(members(labels[0]))}


def main() -> None:
    """Print the figures as a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=256)
    chosen = parser.parse_args()
    found = measure(chosen.count, chosen.dimension)
    print(describe_machine())
    row = [f"{chosen.count:,}", f"{chosen.dimension}", f"{found['seconds']:.1f}", f"{found['MiB']:.0f}"]
    print(markdown_table(["vectors", "numbers", "seconds", "MiB beside them"], [row]))


if __name__ == "__main__":
    main()
