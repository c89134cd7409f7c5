"""The kinds of vector index that `vector_search` compares, behind one small interface."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil

from benchmarks.timing import available_cores
from benchmarks.vector_data import Ids, K, Vectors
from vitmae_search.records import VectorAttributes
from vitmae_search.vectors import VectorCache
from vitmae_search.vectors.approximate import ApproximateIndex

_TRAINED_ON = 40_000
_CHUNK = 50_000
_CANDIDATES = 400
IN_MEMORY = 1_500_000
"""With more vectors, indexes that keep them in memory in 8 or 32 bits are left out."""

_EF = 300  # of graphs, when searching: takes about as long as ours
_CONNECTIVITY, _EF_BUILDING = 16, 100


class IndexKind:
    """One kind of index. Ids are 0 to N-1, then those that are added.

    The file of `save` holds what the index keeps in memory. The float32 vectors are mapped from a file of
    their own; only `IndexFlatIP` and graphs keep them as well. A method that a kind cannot do raises
    `NotImplementedError`.
    """

    name: str
    exact = False
    module: str | None = None
    """The optional package that it needs."""

    def build(self, vectors: Vectors) -> None:
        """Index (N, D) vectors."""
        raise NotImplementedError

    def search(self, query: Vectors) -> Ids:
        """The ids of the K nearest of a (D,) query, best first."""
        raise NotImplementedError

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        raise NotImplementedError

    def reopen(self, path: Path) -> None:
        """Read the file into a new index, which is then dropped."""
        raise NotImplementedError

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Add vectors.

        Args:
            ids: (n,).
            vectors: (n, D).
        """
        raise NotImplementedError

    def remove(self, ids: Ids) -> None:
        """Remove these (n,) ids."""
        raise NotImplementedError


class NumpyProduct(IndexKind):
    """A NumPy product of all vectors with the query."""

    name = "NumPy product"
    exact = True

    def build(self, vectors: Vectors) -> None:
        """Index (N, D) vectors."""
        self._vectors = vectors

    def search(self, query: Vectors) -> Ids:
        """The ids of the K nearest of a (D,) query, best first."""
        scores = self._vectors @ query
        best = np.argpartition(-scores, K)[:K]
        return best[np.argsort(-scores[best])]


class FaissIndex(IndexKind):
    """An index of FAISS. `candidates` of its answers are compared exactly with the mapped vectors."""

    def __init__(self, name: str, make: Callable[[int, int], Any], candidates: int = 0) -> None:
        """`make` creates the index from D and N."""
        self.name, self._make, self._candidates = name, make, candidates
        self.exact = name == "IndexFlatIP"

    def build(self, vectors: Vectors) -> None:
        """Index (N, D) vectors."""
        self._vectors, count = vectors, len(vectors)
        faiss.omp_set_num_threads(available_cores())
        self._index = self._make(vectors.shape[1], count)
        if not self._index.is_trained:
            self._index.train(np.ascontiguousarray(vectors[:: -(-count // _TRAINED_ON)]))
        for start in range(0, count, _CHUNK):
            self._index.add(np.ascontiguousarray(vectors[start : start + _CHUNK]))

    def search(self, query: Vectors) -> Ids:
        """The ids of the K nearest of a (D,) query, best first."""
        faiss.omp_set_num_threads(1)
        found: Ids = self._index.search(query[None], self._candidates or K)[1][0]
        found = np.sort(found[found >= 0])
        return found[np.argsort(-(self._vectors[found] @ query))[:K]]

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        faiss.write_index(self._index, str(path))

    def reopen(self, path: Path) -> None:
        """Read the file into a new index, which is then dropped."""
        faiss.read_index(str(path))

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `IndexKind.add`.

        Args:
            ids: (n,).
            vectors: (n, D).
        """
        self._index.add(vectors)

    def remove(self, ids: Ids) -> None:
        """Remove these (n,) ids."""
        if isinstance(self._index, faiss.IndexRefine):
            raise NotImplementedError
        self._index.remove_ids(ids)


class HnswlibIndex(IndexKind):
    """hnswlib's graph over float32 vectors. It can only hide vectors, not remove them."""

    name = f"hnswlib, ef {_EF}"
    module = "hnswlib"

    def build(self, vectors: Vectors) -> None:
        """Index (N, D) vectors."""
        import hnswlib

        self._dimension = vectors.shape[1]
        self._index = hnswlib.Index("ip", self._dimension)
        self._index.init_index(len(vectors) + 2000, M=_CONNECTIVITY, ef_construction=_EF_BUILDING)
        self._index.add_items(vectors, np.arange(len(vectors)), num_threads=available_cores())
        self._index.set_ef(_EF)

    def search(self, query: Vectors) -> Ids:
        """The ids of the K nearest of a (D,) query, best first."""
        found: Ids = self._index.knn_query(query[None], K, num_threads=1)[0][0].astype(np.int64)
        return found

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        self._index.save_index(str(path))

    def reopen(self, path: Path) -> None:
        """Read the file into a new index, which is then dropped."""
        import hnswlib

        hnswlib.Index("ip", self._dimension).load_index(str(path))

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `IndexKind.add`.

        Args:
            ids: (n,).
            vectors: (n, D).
        """
        self._index.add_items(vectors, ids, num_threads=available_cores())


class UsearchIndex(IndexKind):
    """usearch's graph over half-precision vectors."""

    name = f"usearch f16, ef {_EF}"
    module = "usearch"

    def build(self, vectors: Vectors) -> None:
        """Index (N, D) vectors."""
        from usearch.index import Index

        self._index: Any = Index(
            ndim=vectors.shape[1],
            metric="ip",
            dtype="f16",
            connectivity=_CONNECTIVITY,
            expansion_add=_EF_BUILDING,
            expansion_search=_EF,
        )
        self._index.add(np.arange(len(vectors)), vectors, threads=available_cores())

    def search(self, query: Vectors) -> Ids:
        """The ids of the K nearest of a (D,) query, best first."""
        found: Ids = self._index.search(query, K, threads=1).keys.astype(np.int64)
        return found

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        self._index.save(str(path))

    def reopen(self, path: Path) -> None:
        """Read the file into a new index, which is then dropped."""
        from usearch.index import Index

        Index.restore(str(path))

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `IndexKind.add`.

        Args:
            ids: (n,).
            vectors: (n, D).
        """
        self._index.add(ids, vectors, threads=available_cores())

    def remove(self, ids: Ids) -> None:
        """Remove these (n,) ids."""
        self._index.remove(ids)


class LibraryIndex(IndexKind):
    """The index of a library, through `VectorCache`. The mapped file of vectors is written first."""

    name = "**ours**"

    def __init__(self, vectors: Vectors, folder: Path) -> None:
        self.source, self._cache = ArraySource(vectors), VectorCache(folder)
        self._cache.save(self.source)

    def build(self, vectors: Vectors) -> None:
        """Build the approximate index, which measures its recall."""
        self._cache.speed_up(self.source)

    def search(self, query: Vectors, allowed: Ids | None = None) -> Ids:
        """As in the base class.

        Args:
            query: (D,).
            allowed: Sorted ids that a filter leaves; None is all.
        """
        return self._cache.open(self.source).search(query[None], K, allowed=allowed)[0].ids

    @property
    def approximate(self) -> ApproximateIndex | None:
        """The approximate index; None if searches stayed exact."""
        return self._cache.open(self.source).approximate

    def save(self, path: Path) -> None:
        """Copy the file that `build` wrote, so that its size can be read."""
        made = self._cache.approximate_path(self.source.key)
        path.write_bytes(made.read_bytes() if made.exists() else b"")

    def reopen(self, path: Path) -> None:
        """Open it through a new cache, with all verification."""
        VectorCache(self._cache.folder).open(self.source)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `IndexKind.add`.

        Args:
            ids: (n,).
            vectors: (n, D).
        """
        self.source.added.append((ids, vectors))
        self._cache.open(self.source)

    def remove(self, ids: Ids) -> None:
        """Remove these (n,) ids."""
        self.source.removed = ids
        self._cache.open(self.source)

    def measure_saving(self) -> str:
        """Say how long it takes to open the file, and what it costs to save what was added and removed."""
        times, process = [time.perf_counter()], psutil.Process()
        cache = VectorCache(self._cache.folder)
        cache.open(self.source)
        times.append(time.perf_counter())
        before = process.io_counters().write_chars
        assert cache.save(self.source)
        times.append(time.perf_counter())
        written = (process.io_counters().write_chars - before) / 1e6
        opening, saving = np.diff(times)
        changes = (
            f"{sum(len(ids) for ids, _ in self.source.added):,} more and {len(self.source.removed):,} fewer"
        )
        return f"Opened in {opening:.2f} s; {changes} saved in {saving:.2f} s, {written:.1f} MB written"


class ArraySource:
    """Stands in for a catalogue: all vectors are revision 1, and each later change is one revision."""

    key = "benchmark"

    def __init__(self, vectors: Vectors) -> None:
        self.dimension = vectors.shape[1]
        self.added: list[tuple[Ids, Vectors]] = []
        self.removed: Ids = np.empty(0, np.int64)
        self._vectors = vectors

    def revision(self) -> int:
        """The number of the last change."""
        return 1 + len(self.added) + bool(len(self.removed))

    def revision_identity(self, revision: int) -> str | None:
        """Each revision is its own identity."""
        return str(revision)

    def count_added_since(self, revision: int) -> int:
        """How many ids the revisions after this one added."""
        return sum(len(ids) for ids, _ in self.added_since(revision))

    def added_since(self, revision: int) -> Iterator[tuple[Ids, Vectors]]:
        """Chunks of ids and vectors of the revisions after this one."""
        for start in range(0, len(self._vectors) if revision < 1 else 0, 4096):
            rows = self._vectors[start : start + 4096]
            yield np.arange(start, start + len(rows)), np.asarray(rows)
        for number, chunk in enumerate(self.added, start=2):
            if number > revision:
                yield chunk

    def removed_since(self, revision: int) -> Ids:
        """(n,) ids that were removed; the benchmark asks only after removing."""
        return self.removed

    def stored(self, ids: Ids) -> tuple[Ids, Vectors]:
        """Ids and their (n, D) vectors."""
        return ids, np.stack([self._vectors[row] for row in ids])

    def attributes_changed_since(self, revision: int) -> Iterator[Ids]:
        """None change."""
        return iter(())

    def attributes(self, ids: Ids) -> list[VectorAttributes]:
        """None are filtered by."""
        return [VectorAttributes()] * len(ids)


def index_kinds(count: int, slow: bool) -> list[IndexKind]:
    """The kinds that ours is compared with.

    Args:
        count: How many vectors there are; some kinds are left out for many.
        slow: Include graphs, which take long to build.
    """
    few = [
        FaissIndex("IVF, SQ8, 16 lists", faiss_factory("IVF{lists},SQ8", probed=lambda lists: 16)),
        FaissIndex("RaBitQ, SQ8 refines 200", faiss_factory("RR{d},RaBitQfs,Refine(SQ8)", factor=20)),
    ]
    many: list[IndexKind] = [
        FaissIndex("RaBitQ, 400 compared", faiss_factory("RR{d},RaBitQfs"), _CANDIDATES),
        FaissIndex(
            "IVF, RaBitQ, ¼ of the lists, 400 compared",
            faiss_factory("RR{d},IVF{lists},RaBitQfs", probed=lambda lists: lists // 4),
            _CANDIDATES,
        ),
        FaissIndex("PQ4 of all dimensions, 400 compared", faiss_factory("PQ{quarter}x4fs"), _CANDIDATES),
    ]
    kept = [FaissIndex("IndexFlatIP", lambda dimension, _: faiss.IndexFlatIP(dimension)), *few]
    graphs = [HnswlibIndex(), UsearchIndex()] if slow else []
    return [NumpyProduct(), *(kept if count <= IN_MEMORY else []), *many, *graphs]


def faiss_factory(
    text: str, *, probed: Callable[[int], int] | None = None, factor: float = 1
) -> Callable[[int, int], Any]:
    """What makes an index from FAISS's description of it.

    The metric is Euclidean, which ranks unit vectors as the cosine does.

    Args:
        text: The description; {d} is D, {quarter} is D / 4, {lists} a power of two near 4 √N.
        probed: How many of the inverted lists are searched.
        factor: How many times K candidates are refined.
    """

    def make(dimension: int, count: int) -> Any:
        lists = 1 << round(np.log2(3.2 * np.sqrt(count)))
        description = text.format(d=dimension, lists=lists, quarter=dimension // 4)
        index = faiss.index_factory(dimension, description, faiss.METRIC_L2)
        if probed is not None:
            inverted = faiss.extract_index_ivf(index)
            inverted.nprobe, inverted.cp.min_points_per_centroid = probed(lists), 1
        if isinstance(index, faiss.IndexRefine):
            index.k_factor = factor
        return index

    return make
