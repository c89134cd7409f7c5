"""Vectors that are difficult to search, queries, and exact answers: the data of `vector_search`.

Everything is generated from seeds, in chunks, into mapped files: a million vectors of 768 are 3 GB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]

K = 10
QUERIES = 200
DIMENSION = 768
PHOTOS = 10_000
"""How many photos of a folder are embedded at most; further vectors are mixtures of theirs."""

_CHUNK = 50_000
_INTRINSIC, _CLUSTERS, _SPREAD, _NOISE = 48, 1000, 1.5, 0.65
_QUERY_NOISE, _MIXED_NOISE = 0.5, 0.3
_MAKING, _HELD_OUT, _NOISY = 0, 1, 2  # seeds
_SAME = 1e-6

VectorSampler = Callable[[int, "np.random.Generator", bool], Vectors]
"""`(n, random, held_out)` → (n, D) float32 of unit length. Held out vectors come from the same distribution
and are never stored."""


@dataclass(frozen=True, slots=True, eq=False)
class SearchData:
    """Vectors to search, with queries and exact answers.

    Attributes:
        name: The data's name.
        vectors: (N, D) float32 of unit length, mapped from a file.
        queries: (Q, D); the first half are held out, the others stored vectors with noise.
        kth: (Q,) the score of the last of each query's K nearest.
        more: (n, D) vectors to add later.
    """

    name: str
    vectors: Vectors
    queries: Vectors
    kth: Vectors
    more: Vectors

    def scores(self, query: Vectors, found: Ids) -> Vectors:
        """Exact scores of what a search found.

        Args:
            query: (D,).
            found: At most K ids.

        Returns:
            (K,) float32; -inf for answers that are missing.
        """
        scores = np.full(K, -np.inf, np.float32)
        ids = np.unique(found)
        scores[: len(ids)] = self.vectors[ids] @ query
        return scores


def clustered_vectors(dimension: int = DIMENSION) -> VectorSampler:
    """Samples overlapping clusters, wider than their centres are apart, in 48 dimensions, with noise in all.

    With 1,024 inverted lists, the 16 nearest lists hold less than half of the ten nearest of 100,000.
    """
    random = np.random.default_rng(7)
    basis = np.linalg.qr(random.standard_normal((dimension, _INTRINSIC)))[0].T.astype(np.float32)
    centres = random.standard_normal((_CLUSTERS, _INTRINSIC), np.float32)
    noise = np.float32(_NOISE * np.sqrt(_INTRINSIC * (1 + _SPREAD**2) / dimension))

    def draw(count: int, random: np.random.Generator, held_out: bool) -> Vectors:
        near = centres[random.integers(0, _CLUSTERS, count)]
        near = near + np.float32(_SPREAD) * random.standard_normal((count, _INTRINSIC), np.float32)
        return unit_rows(near @ basis + noise * random.standard_normal((count, dimension), np.float32))

    return draw


def mixed_vectors(base: Vectors) -> VectorSampler:
    """Samples mixtures of two of (B, D) real vectors, with noise. The last tenth is for held out ones."""
    kept = len(base) - len(base) // 10
    noise = np.float32(_MIXED_NOISE * mean_distance(base) / np.sqrt(base.shape[1]))

    def draw(count: int, random: np.random.Generator, held_out: bool) -> Vectors:
        first, last = (kept, len(base)) if held_out else (0, kept)
        one, other = random.integers(first, last, (2, count))
        share = random.uniform(0, 0.5, (count, 1)).astype(np.float32)
        mixed = base[one] * (1 - share) + base[other] * share
        return unit_rows(mixed + noise * random.standard_normal(mixed.shape, np.float32))

    return draw


def embed_folder(folder: Path) -> Vectors:
    """(B, D) vectors of evenly drawn photos of `folder`, by the bundled model with its projection."""
    from vitmae_search.embedding import PluginHost, open_embedder
    from vitmae_search.library.encode_folder import Method, encode
    from vitmae_search.photos import scan

    stamps = list(scan(str(folder), on_problem=print))
    stamps = stamps[:: -(-len(stamps) // PHOTOS)]
    with open_embedder(PluginHost().get("vitmae")) as embedder:
        projection = embedder.own_projection()
        found = encode(stamps, [Method.of_embedder("vitmae", embedder)], shrink_to=embedder.input_size)
        return found.vectors[0] if projection is None else projection(found.vectors[0])


def load_or_make(name: str, draw: VectorSampler, count: int, folder: Path) -> SearchData:
    """Vectors with their queries, read from `folder`, or made there.

    Args:
        name: Name of the data, and of its files.
        draw: What samples vectors.
        count: N.
        folder: Where the files are.
    """
    vectors_path, rest_path = folder / f"{name}-{count}.npy", folder / f"{name}-{count}.npz"
    if not rest_path.exists():
        queries, more = _make(draw, count, vectors_path)
        kth = kth_scores(np.load(vectors_path, mmap_mode="r"), queries)
        np.savez(rest_path, queries=queries, kth=kth, more=more)
    with np.load(rest_path) as rest:
        vectors = np.load(vectors_path, mmap_mode="r")
        return SearchData(name, vectors, rest["queries"], rest["kth"], rest["more"])


def _make(draw: VectorSampler, count: int, path: Path) -> tuple[Vectors, Vectors]:
    """Write the vectors to `path`; return the queries and the vectors to add."""
    held_out = draw(QUERIES // 2, np.random.default_rng([_HELD_OUT]), True)
    random = np.random.default_rng([_NOISY])
    shape = (count, held_out.shape[1])
    stored = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for start in range(0, count, _CHUNK):
        rows = stored[start : start + _CHUNK]
        rows[:] = draw(len(rows), np.random.default_rng([_MAKING, start]), False)
    drawn = stored[np.sort(random.choice(count, QUERIES - len(held_out), replace=False))]
    noise = np.float32(_QUERY_NOISE * mean_distance(drawn) / np.sqrt(shape[1]))
    noisy = unit_rows(drawn + noise * random.standard_normal(drawn.shape, np.float32))
    return np.concatenate([held_out, noisy]), draw(1000, random, False)


def kth_scores(vectors: Vectors, queries: Vectors, rows: Ids | None = None, k: int = K) -> Vectors:
    """Exact scores of the k-th nearest vector.

    Args:
        vectors: (N, D).
        queries: (Q, D).
        rows: The rows of `vectors` that are searched; None is all.
        k: How many neighbours, from 1.

    Returns:
        (Q,) float32.
    """
    best = np.full((len(queries), k), -np.inf, np.float32)
    for start in range(0, len(vectors) if rows is None else len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        chunk = vectors[part] if rows is None else vectors[rows[part]]
        scores = np.concatenate([best, queries @ chunk.T], axis=1)
        best = np.partition(scores, scores.shape[1] - k, axis=1)[:, -k:]
    kth: Vectors = best.min(axis=1)
    return kth


def recall_at_k(found: Vectors, kth: Vectors) -> float:
    """The share of the K nearest that was found. Vectors that tie with the K-th count as found.

    Args:
        found: (Q, K) scores of what was found.
        kth: (Q,) scores of the true K-th nearest.
    """
    return float((found >= kth[:, None] - _SAME).mean())


def mean_distance(vectors: Vectors) -> np.float32:
    """The mean distance of (N, D) vectors from their mean."""
    return np.float32(np.linalg.norm(vectors - vectors.mean(axis=0), axis=1).mean())


def unit_rows(vectors: Vectors) -> Vectors:
    """(N, D) with rows of unit length."""
    scaled: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return scaled
