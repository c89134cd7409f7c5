"""Kinds of vector index compared on vectors that are difficult to search: one query at a time, the ten best.

    python -m benchmarks.vector_search [--count 100000] [--dimension 768] [--data FOLDER] [--cache FOLDER]
        [--all] [--ours]

Vectors are generated (overlapping clusters), or come from photos in `--data`, embedded by the
bundled model (D = 256) and, if there are too few, mixed with each other and with noise. Half of the queries
are held out, half are stored vectors with noise. All kinds take turns in blocks of queries, with one thread
each (NumPy decides for itself). `--cache` keeps the vectors. Graphs take minutes to build, so with more than
200,000 vectors they are only measured with `--all`. `--ours` measures ours alone. The last line
says what opening takes, and saving 1,000 photos more and fewer, and the memory without mapped files.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from benchmarks.timing import describe_machine, format_figure, markdown_table
from benchmarks.vector_data import (
    DIMENSION,
    K,
    SearchData,
    Vectors,
    clustered_vectors,
    embed_folder,
    kth_scores,
    load_or_make,
    mixed_vectors,
    recall_at_k,
)
from benchmarks.vector_indexes import IndexKind, LibraryIndex, index_kinds

_BLOCKS = 10
_WARM_UP = 3
_SLOW = 3  # queries in a block for exact kinds, if there are many vectors
_MANY = 200_000
_SHARES = (0.5, 0.05, 0.001)


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=DIMENSION, help="of vectors that are generated")
    parser.add_argument("--data", type=Path, help="a folder of photos")
    parser.add_argument("--cache", type=Path, help="where the vectors are kept; else they are deleted")
    parser.add_argument("--all", action="store_true", help="graphs, however long they take")
    parser.add_argument("--ours", action="store_true", help="the library's index only")
    chosen = parser.parse_args()
    with ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(dir=chosen.cache)))
        name, draw = (
            (f"clusters-{chosen.dimension}", clustered_vectors(chosen.dimension))
            if chosen.data is None
            else ("photos", mixed_vectors(embed_folder(chosen.data)))
        )
        data = load_or_make(name, draw, chosen.count, chosen.cache or folder)
        print(describe_machine("faiss-cpu", "numpy", "hnswlib", "usearch"))
        print(f"{len(data.vectors)} vectors of {data.vectors.shape[1]} ({name})\n")
        others = [] if chosen.ours else index_kinds(chosen.count, chosen.all or chosen.count <= _MANY)
        compare(data, folder, others)


def compare(data: SearchData, folder: Path, others: Sequence[IndexKind]) -> None:
    """Build all kinds, time them in turns, and print both tables.

    Args:
        data: Vectors and queries.
        folder: A folder for index files.
        others: What the library's index is compared with.
    """
    ours = LibraryIndex(data.vectors, folder / "ours")
    measured = [Measurement(kind) for kind in [*others, ours] if _installed(kind)]
    for row in measured:
        row.build(data, folder)
    time_queries_interleaved(measured, data)
    made = ours.approximate
    filters = measure_filters(ours, data)
    for row in measured:
        row.time_updates(data)
    print(markdown_table(HEADER, [row.cells(data) for row in measured]))
    if made is None:
        print("\nOurs stayed exact.\n")
    else:
        known = made.measured
        print(
            f"\nOurs: {made.kind}, {known.share:.0%} of the lists, {known.candidates} compared, recall "
            f"{known.recall:.3f} as it measured.\n"
        )
    print(markdown_table(["filter leaves", "photos", "p50, ms", "p99, ms", "recall@10"], filters))
    memory = psutil.Process().memory_info()
    print(f"\n{ours.measure_saving()}; the process has {(memory.rss - memory.shared) / 1e6:,.0f} MB.")


HEADER = (
    *("", "build, s", "bytes a vector", "open, ms", "p50, ms", "p99, ms"),
    *("recall@10, held out", "recall@10, with noise", "added a second", "removed a second"),
)


@dataclass(eq=False)
class Measurement:
    """A kind of index and what was measured of it. What it cannot do stays None."""

    kind: IndexKind
    building: float = 0.0
    stored: int | None = None
    opening: float | None = None
    adding: float | None = None
    removing: float | None = None
    seconds: list[float] = field(default_factory=list)
    queried: list[int] = field(default_factory=list)
    scores: list[Vectors] = field(default_factory=list)

    def build(self, data: SearchData, folder: Path) -> None:
        """Time building, writing and reading it; the file is deleted.

        Args:
            data: The vectors.
            folder: A folder for the file.
        """
        self.building = _timed(lambda: self.kind.build(data.vectors)) or 0.0
        print(f"{self.kind.name}: built in {self.building:.1f} s", file=sys.stderr, flush=True)
        path = folder / "index"
        if _timed(lambda: self.kind.save(path)) is not None:
            self.stored = path.stat().st_size
            self.opening = _timed(lambda: self.kind.reopen(path))
            path.unlink()

    def time_queries(self, data: SearchData, queries: Sequence[int]) -> None:
        """Time queries one by one.

        Args:
            data: Vectors and queries.
            queries: Their numbers.
        """
        for number in queries:
            query = data.queries[number]
            started = time.perf_counter()
            found = self.kind.search(query)
            self.seconds.append(time.perf_counter() - started)
            self.queried.append(number)
            self.scores.append(data.scores(query, found))

    def time_updates(self, data: SearchData) -> None:
        """Time adding new vectors and removing as many."""
        count = len(data.more)
        ids = len(data.vectors) + np.arange(count)
        gone = np.sort(np.random.default_rng(0).choice(len(data.vectors), count, replace=False))
        self.adding = _timed(lambda: self.kind.add(ids, data.more))
        self.removing = _timed(lambda: self.kind.remove(gone))

    def cells(self, data: SearchData) -> list[str]:
        """The cells of its row, as in `HEADER`."""
        p50, p99 = 1000 * np.percentile(self.seconds, (50, 99))
        queried, scores = np.array(self.queried), np.stack(self.scores)
        held_out = queried < len(data.queries) // 2
        recalls = [recall_at_k(scores[half], data.kth[queried[half]]) for half in (held_out, ~held_out)]
        return [
            self.kind.name,
            f"{self.building:.1f}",
            _cell(self.stored, lambda size: size / len(data.vectors)),
            _cell(self.opening, lambda seconds: 1000 * seconds),
            f"{p50:.2f}",
            f"{p99:.2f}",
            *(f"{one:.3f}" for one in recalls),
            *(
                _cell(taken, lambda seconds: len(data.more) / seconds)
                for taken in (self.adding, self.removing)
            ),
        ]


def time_queries_interleaved(rows: Sequence[Measurement], data: SearchData) -> None:
    """Time every query with every kind, in blocks; each block begins with another kind.

    Args:
        rows: The kinds.
        data: Vectors and queries.
    """
    for row in rows:
        for query in data.queries[:_WARM_UP]:
            row.kind.search(query)
    for number in range(_BLOCKS):
        block = range(number, len(data.queries), _BLOCKS)
        first = number % len(rows)
        for row in (*rows[first:], *rows[:first]):
            slow = row.kind.exact and len(data.vectors) > _MANY
            row.time_queries(data, block[:: len(block) // _SLOW] if slow else block)


def measure_filters(ours: LibraryIndex, data: SearchData) -> list[list[str]]:
    """Rows of the second table: ours with random filters that leave a share of the photos.

    Args:
        ours: The library's index.
        data: Vectors and queries.
    """
    rows, count = [], len(data.vectors)
    for share in _SHARES:
        allowed = np.sort(np.random.default_rng(1).choice(count, max(K, int(share * count)), replace=False))
        kth = kth_scores(data.vectors, data.queries, allowed)
        seconds, scores = [], []
        for query in data.queries:
            started = time.perf_counter()
            found = ours.search(query, allowed)
            seconds.append(time.perf_counter() - started)
            scores.append(data.scores(query, found))
        p50, p99 = 1000 * np.percentile(seconds, (50, 99))
        found_share = recall_at_k(np.stack(scores), kth)
        rows.append([f"{share:.1%}", str(len(allowed)), f"{p50:.2f}", f"{p99:.2f}", f"{found_share:.3f}"])
    return rows


def _installed(kind: IndexKind) -> bool:
    """Whether its package is installed; prints a message if not."""
    here = kind.module is None or importlib.util.find_spec(kind.module) is not None
    if not here:
        print(
            f"{kind.name} is left out: {kind.module} is not installed (pip install 'vitmae-search[bench]').\n"
        )
    return here


def _timed(do: Callable[[], object]) -> float | None:
    """Seconds that it takes; None if the kind cannot do it."""
    started = time.perf_counter()
    try:
        do()
    except NotImplementedError:
        return None
    return time.perf_counter() - started


def _cell(figure: float | None, of: Callable[[float], float]) -> str:
    return "—" if figure is None else format_figure(of(figure))


if __name__ == "__main__":
    main()
