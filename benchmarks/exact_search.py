"""Exact search beside a plain NumPy product: one query at a time, the ten best of N vectors.

    python -m benchmarks.exact_search [--dimension 192] [--count 200000]

Both take turns in one run on the same clustered unit vectors; medians. The answers are compared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vitmae_search.vectors import ExactIndex

K = 10
ROUNDS = 51


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dimension", type=int, default=192)
    parser.add_argument("--count", type=int, default=200_000)
    chosen = parser.parse_args()
    vectors = clustered_vectors(chosen.count, chosen.dimension)
    queries = clustered_vectors(ROUNDS, chosen.dimension, seed=1)
    index = ExactIndex.from_arrays(np.arange(1, chosen.count + 1, dtype=np.int64), vectors)

    def ours(query: NDArray[np.float32]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = index.search(query[None], K)[0].ids
        return found

    def plain(query: NDArray[np.float32]) -> NDArray[np.int64]:
        scores = vectors @ query
        best = np.argpartition(-scores, K)[:K]
        found: NDArray[np.int64] = best[np.argsort(-scores[best], kind="stable")] + 1
        return found

    same, seconds = time_interleaved_queries(ours, plain, queries)
    first, second = (1000 * float(np.median(column)) for column in seconds.T)
    print("| vectors | dimension | ours, ms | NumPy, ms | ratio | same answers |\n|---|---|---|---|---|---|")
    print(
        f"| {chosen.count} | {chosen.dimension} | {first:.1f} | {second:.1f} "
        f"| {first / second:.2f} | {same} of {ROUNDS} |"
    )


def time_interleaved_queries(
    ours: Callable[[NDArray[np.float32]], NDArray[np.int64]],
    plain: Callable[[NDArray[np.float32]], NDArray[np.int64]],
    queries: NDArray[np.float32],
) -> tuple[int, NDArray[np.float64]]:
    """Time both on each query, in turns.

    Args:
        ours: Ids of the ten best for a (D,) query.
        plain: The same by a NumPy product.
        queries: (Q, D) unit vectors.

    Returns:
        How many answers are the same, and (Q, 2) seconds.
    """
    seconds, same = np.empty((len(queries), 2)), 0
    for row, query in zip(seconds, queries, strict=True):
        start = time.perf_counter()
        first = ours(query)
        middle = time.perf_counter()
        second = plain(query)
        row[:] = middle - start, time.perf_counter() - middle
        same += bool(np.array_equal(first, second))
    return same, seconds


def clustered_vectors(count: int, dimension: int, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors in overlapping clusters, as photos' vectors are.

    Args:
        count: N.
        dimension: D.
        seed: Seed of the vectors; the clusters' centres are always the same.

    Returns:
        (N, D) float32.
    """
    centres = np.random.default_rng(7).standard_normal((200, dimension))
    random = np.random.default_rng(seed)
    rows = centres[random.integers(0, 200, count)] + random.standard_normal((count, dimension))
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


if __name__ == "__main__":
    main()
