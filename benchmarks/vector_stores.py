"""Stores of vectors, side by side: files, PostgreSQL with pgvector, Milvus.

    python -m benchmarks.vector_stores FOLDER 100000 files postgresql://... milvus://...

Every store is filled by following a source of clustered vectors (`vector_data`), and then searched one query
at a time for the 10 nearest: of all, and under filters that leave 50, 10, 1 and 0.1 % of them. Files get the
ids that pass, as the catalogue gives them; databases get attributes. Recall is measured against comparing
every vector. The memory is this process's; a server's is what `--pid` says it is. Each store's rows are
printed as soon as they are there: the larger ones take hours to build.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import click
import numpy as np
import psutil

from benchmarks.timing import describe_machine, markdown_table
from benchmarks.vector_data import Ids, K, Vectors, clustered_vectors, kth_scores, load_or_make
from vitmae_search.records import AttributeFilter, VectorAttributes
from vitmae_search.vectors import FilteringIndex, Matches, VectorIndex, VectorStore, open_store

SHARES = (1, 2, 10, 100, 1000)
"""A filter leaves one vector of so many."""

_CHUNK = 4096


class Source:
    """Vectors in the order of their ids, with one word for each filter that they pass."""

    key = "benchmark"

    def __init__(self, vectors: Vectors) -> None:
        """Give (N, D) float32 as one revision."""
        self._vectors, self.dimension = vectors, vectors.shape[1]
        # Which pass is drawn, so that it has nothing to do with where a vector lies.
        self.groups = np.random.default_rng(5).permutation(len(vectors))

    def revision(self) -> int:
        """One revision has all."""
        return 1

    def revision_identity(self, revision: int) -> str | None:
        """The same at each run: a store that is filled is used again."""
        return {0: "", 1: f"{len(self._vectors)} vectors of {self.dimension}"}.get(revision)

    def count_added_since(self, revision: int) -> int:
        """All or none."""
        return len(self._vectors) if revision < 1 else 0

    def added_since(self, revision: int) -> Iterator[tuple[Ids, Vectors]]:
        """Chunks of all vectors."""
        for start in range(0, len(self._vectors) if revision < 1 else 0, _CHUNK):
            rows = np.array(self._vectors[start : start + _CHUNK])
            yield np.arange(start, start + len(rows)), rows

    def removed_since(self, revision: int) -> Ids:
        """Nothing is removed."""
        return np.empty(0, np.int64)

    def stored(self, ids: Ids) -> tuple[Ids, Vectors]:
        """Ids and their (n, D) vectors."""
        return ids, np.array(self._vectors[ids]).reshape(len(ids), self.dimension)

    def attributes_changed_since(self, revision: int) -> Iterator[Ids]:
        """None change."""
        return iter(())

    def attributes(self, ids: Ids) -> list[VectorAttributes]:
        """The shares in which vectors are."""
        groups = self.groups[ids].tolist()
        return [
            VectorAttributes(tuple(share for share in SHARES if group % share == 0), (float(group),) * 6)
            for group in groups
        ]

    def passing(self, share: int) -> Ids:
        """Ids that pass the filter of one in `share`, ascending."""
        return np.flatnonzero(self.groups % share == 0)


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("count", type=int)
@click.argument("addresses", nargs=-1, required=True)
@click.option("--dimension", default=192, show_default=True)
@click.option("--queries", default=200, show_default=True)
@click.option("--pid", "pids", multiple=True, type=int, help="A server's process, one for each that has one.")
def main(
    folder: Path, count: int, addresses: tuple[str, ...], dimension: int, queries: int, pids: tuple[int, ...]
) -> None:
    """Measure stores at ADDRESSES ("files" for those in FOLDER) with COUNT vectors."""
    folder.mkdir(parents=True, exist_ok=True)
    data = load_or_make(f"clustered{dimension}", clustered_vectors(dimension), count, folder)
    source, asked = Source(data.vectors), data.queries[:queries]
    passing = {share: source.passing(share) for share in SHARES}
    exact = {share: kth_scores(data.vectors, asked, ids, min(K, len(ids))) for share, ids in passing.items()}
    machine = describe_machine("numpy", "faiss-cpu", "sqlalchemy", "pymilvus")
    print(f"{count:,} vectors of {dimension}, {machine}")
    for address in addresses:
        store = open_store(None if address == "files" else address, folder / "files")
        name = "files (FAISS)" if address == "files" else address.split(":")[0]
        _print_now(
            markdown_table(["store", "stored/s", "index built in, s"], [[name, *_fill(store, source, count)]])
        )
        index = store.open(source)
        rows = [
            [name, f"{100 / share:g} %", *_measure(index, source, share, asked, exact[share])]
            for share in SHARES
        ]
        _print_now(markdown_table(["store", "filter leaves", "p50, ms", "p99, ms", "recall@10"], rows))
        store.close()
    memory = {"this process": psutil.Process().memory_info().rss}
    memory |= {f"server {pid}": _memory(pid) for pid in pids}
    print(", ".join(f"{name}: {size / 1e6:,.0f} MB" for name, size in memory.items()))


_print_now = partial(print, flush=True)


def _memory(pid: int) -> int:
    """Bytes that a process and those that it started have for themselves."""
    process = psutil.Process(pid)
    found, size = [process, *process.children(recursive=True)], 0
    for one in found:
        with suppress(psutil.NoSuchProcess):  # a server's processes come and go
            size += one.memory_full_info().uss
    return size


def _fill(store: VectorStore, source: Source, count: int) -> list[str]:
    store.discard(source)
    start = time.perf_counter()
    assert store.save(source)
    stored = time.perf_counter()
    store.speed_up(source)
    return [f"{count / (stored - start):,.0f}", f"{time.perf_counter() - stored:.0f}"]


def _measure(index: VectorIndex, source: Source, share: int, queries: Vectors, kth: Vectors) -> list[str]:
    """p50 and p99 in milliseconds, and the recall."""
    search = _searcher(index, source, share)
    search(queries[:1])
    seconds, hits = [], 0
    for query, least in zip(queries, kth, strict=True):
        start = time.perf_counter()
        [found] = search(query[None])
        seconds.append(time.perf_counter() - start)
        hits += int((found.scores >= least - 1e-6).sum())
    wanted = min(K, len(source.passing(share))) * len(queries)
    p50, p99 = 1000 * np.percentile(seconds, [50, 99])
    return [f"{p50:.1f}", f"{p99:.1f}", f"{hits / wanted:.3f}"]


def _searcher(index: VectorIndex, source: Source, share: int) -> Callable[[Vectors], list[Matches]]:
    if isinstance(index, FilteringIndex):
        filtering, where = index, AttributeFilter(any_of=((share,),) if share > 1 else ())
        return lambda query: filtering.search_where(query, K, where, np.sort)
    allowed = source.passing(share) if share > 1 else None
    return lambda query: index.search(query, K, allowed=allowed)


if __name__ == "__main__":
    main()
