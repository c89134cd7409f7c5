"""Layouts: two coordinates for each vector of a space, and the clusters that the vectors form.

PCA looks from where the vectors differ most, and is done in a second. t-SNE (van der Maaten and Hinton, 2008)
puts neighbours beside each other, and takes minutes. Both place further vectors without moving the others:
PCA by its two axes, t-SNE as Poličar et al. (2023) do, with openTSNE.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import LibraryError
from vitmae_search.vectors.protocols import Ids, IsCancelled, Vectors, never_cancel

LayoutMethod = Literal["pca", "tsne"]

MOST_CLUSTERS = 24
FEWEST_FOR_TSNE = 8
"""Fewer vectors have no neighbourhoods: t-SNE leaves them where PCA puts them."""

_PERPLEXITY = 30
_PLACING_PERPLEXITY = 5  # of photos that are placed later, as openTSNE's `transform` has it
_ITERATIONS = (250, 500)  # with early exaggeration, and after it
_EXAGGERATION = 12
_REPORT_EVERY = 10  # iterations
_EXACT_NEIGHBOURS = 20_000  # of more vectors, neighbours are looked for in an inverted file
_LISTS_SEARCHED = 32
_FFT_FROM = 10_000  # vectors from which openTSNE's interpolation is faster than its tree
_BLOCK = 4096
_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where the vectors of a space lie on a map.

    Attributes:
        ids: (N,) int64, the vectors.
        coordinates: (N, 2) float32.
        fitted: (N,) bool, whether the layout was made with the vector; else it was placed later.
        clusters: (N,) int16, the cluster of each.
        scores: (N,) float32, the cosine with the cluster's centre.
        centres: (K, D) float32, the centres of the clusters, of unit length.
        box: (2, 2) float32, the least and the largest coordinates when it was made.
        axes: (3, D) float32, the mean and the two axes of PCA; (0, D) of t-SNE.
    """

    ids: Ids
    coordinates: NDArray[np.float32]
    fitted: NDArray[np.bool_]
    clusters: NDArray[np.int16]
    scores: NDArray[np.float32]
    centres: Vectors
    box: NDArray[np.float32]
    axes: NDArray[np.float32]

    def only(self, ids: Ids) -> Layout:
        """Return the layout without the vectors that are not among `ids`."""
        kept = np.isin(self.ids, ids)
        rows = ("ids", "coordinates", "fitted", "clusters", "scores")
        return self if kept.all() else replace(self, **{name: getattr(self, name)[kept] for name in rows})

    def to_bytes(self) -> bytes:
        """Return the arrays as an NPZ file."""
        stream = io.BytesIO()
        np.savez(stream, **{name: getattr(self, name) for name in self.__dataclass_fields__})
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Layout:
        """Read what `to_bytes` wrote."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})


OnStep = Callable[[int, int], None]
"""Called with the steps that are done, and all there are."""


class LayoutCancelled(Exception):
    """Making a layout was cancelled."""


def fit_pca(ids: Ids, vectors: Vectors) -> Layout:
    """Lay vectors out along their two principal axes.

    Args:
        ids: (N,) int64.
        vectors: (N, D) float32, of unit length.
    """
    axes = _principal_axes(vectors)
    centres = _centres(vectors)
    clusters, scores = _assign(vectors, centres)
    coordinates = _project(vectors, axes)
    fitted = np.ones(len(ids), np.bool_)
    return Layout(ids, coordinates, fitted, clusters, scores, centres, _box(coordinates), axes)


def fit_tsne(
    ids: Ids,
    vectors: Vectors,
    on_step: OnStep = lambda done, total: None,
    cancelled: IsCancelled = never_cancel,
) -> Layout:
    """Lay vectors out by t-SNE, which begins from PCA's layout.

    Args:
        ids: (N,) int64.
        vectors: (N, D) float32, of unit length.
        on_step: Called as steps are done.
        cancelled: Asked again and again.

    Raises:
        LibraryError: openTSNE is not installed.
        LayoutCancelled: `cancelled` returned True.
    """
    require_tsne()
    layout = fit_pca(ids, vectors)
    if len(ids) >= FEWEST_FOR_TSNE:
        coordinates = _tsne(vectors, layout.coordinates, on_step, cancelled)
        layout = replace(layout, coordinates=coordinates, box=_box(coordinates))
    return replace(layout, axes=layout.axes[:0])


def require_tsne() -> None:
    """Raise `LibraryError` where openTSNE is not installed."""
    try:
        import openTSNE  # noqa: F401
    except ImportError:
        raise LibraryError("a t-SNE map needs a package more: pip install 'vitmae-search[map]'") from None


def place(layout: Layout, ids: Ids, vectors: Vectors, fitted: Callable[[Ids], Vectors]) -> Layout:
    """Return a layout with further vectors, in which the others lie where they did.

    Args:
        layout: The layout so far.
        ids: (M,) int64, not in the layout.
        vectors: (M, D) float32, of unit length.
        fitted: Gives the vectors of ids that the layout was made with.
    """
    if len(layout.axes):
        coordinates = _project(vectors, layout.axes)
    else:
        coordinates = _place_by_neighbours(vectors, layout, fitted)
    clusters, scores = _assign(vectors, layout.centres)
    return replace(
        layout,
        ids=np.concatenate([layout.ids, ids]),
        coordinates=np.concatenate([layout.coordinates, coordinates]),
        fitted=np.concatenate([layout.fitted, np.zeros(len(ids), np.bool_)]),
        clusters=np.concatenate([layout.clusters, clusters]),
        scores=np.concatenate([layout.scores, scores]),
    )


def _box(coordinates: NDArray[np.float32]) -> NDArray[np.float32]:
    if not len(coordinates):
        return np.array([[0, 0], [1, 1]], np.float32)
    return np.stack([coordinates.min(axis=0), coordinates.max(axis=0)])


# PCA --------------------------------------------------------------------------------------------------------


def _principal_axes(vectors: Vectors) -> NDArray[np.float32]:
    """The mean and the two axes along which the vectors differ most: (3, D)."""
    dimension = vectors.shape[1]
    axes = np.zeros((3, dimension), np.float32)
    if not len(vectors):
        return axes
    mean = vectors.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((dimension, dimension))
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK] - mean.astype(np.float32)
        covariance += block.T @ block
    found = np.linalg.eigh(covariance)[1][:, ::-1][:, :2].T  # the largest eigenvalues are the last
    # Of the two directions of an axis always the same one.
    largest = np.take_along_axis(found, np.abs(found).argmax(axis=1)[:, None], axis=1)
    axes[0] = mean
    axes[1 : 1 + len(found)] = found * np.where(largest < 0, -1, 1)
    return axes


def _project(vectors: Vectors, axes: NDArray[np.float32]) -> NDArray[np.float32]:
    projected: NDArray[np.float32] = (vectors - axes[0]) @ axes[1:].T
    return projected


# Clusters ---------------------------------------------------------------------------------------------------


def _centres(vectors: Vectors) -> Vectors:
    """The centres of clusters by k-means on the sphere: (K, D) of unit length."""
    import faiss

    count = min(MOST_CLUSTERS, max(1, round((len(vectors) / 2) ** 0.5)))
    if len(vectors) <= count:
        return np.ascontiguousarray(vectors[:count])
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        count,
        niter=20,
        spherical=True,
        seed=_SEED + 1,
        min_points_per_centroid=1,
        max_points_per_centroid=1000,
    )
    kmeans.train(np.ascontiguousarray(vectors))
    return np.asarray(kmeans.centroids, np.float32)


def _assign(vectors: Vectors, centres: Vectors) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """The nearest centre of each vector, and the cosine with it."""
    clusters = np.zeros(len(vectors), np.int16)
    scores = np.zeros(len(vectors), np.float32)
    if len(centres):
        for start in range(0, len(vectors), _BLOCK):
            found = vectors[start : start + _BLOCK] @ centres.T
            clusters[start : start + _BLOCK] = found.argmax(axis=1)
            scores[start : start + _BLOCK] = found.max(axis=1)
    return clusters, scores


# t-SNE ------------------------------------------------------------------------------------------------------


def _tsne(
    vectors: Vectors, begun: NDArray[np.float32], on_step: OnStep, cancelled: IsCancelled
) -> NDArray[np.float32]:
    import openTSNE
    from openTSNE.affinity import PrecomputedAffinities, joint_probabilities_nn
    from openTSNE.initialization import rescale

    total = sum(_ITERATIONS)
    on_step(0, total)
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    neighbours, distances = _neighbours(vectors, int(3 * perplexity))
    if cancelled():
        raise LayoutCancelled
    # Few vectors are too little work for several threads, which would wait for each other.
    threads = 1 if len(vectors) < _FFT_FROM else os.cpu_count() or 1
    similar = joint_probabilities_nn(neighbours, distances, [perplexity], n_jobs=threads)
    embedding = openTSNE.TSNEEmbedding(
        rescale(begun.astype(np.float64)),
        PrecomputedAffinities(similar, normalize=False),
        negative_gradient_method=_gradient_method(len(vectors)),
        n_jobs=threads,
        random_state=_SEED,
    )
    for phase, (iterations, exaggeration, momentum) in enumerate(
        ((_ITERATIONS[0], _EXAGGERATION, 0.5), (_ITERATIONS[1], 1, 0.8))
    ):
        before = sum(_ITERATIONS[:phase])

        def report(iteration: int, error: float, shown: Any, before: int = before) -> bool:
            on_step(before + iteration, total)
            return cancelled()

        embedding.optimize(
            n_iter=iterations,
            exaggeration=exaggeration,
            momentum=momentum,
            learning_rate="auto",
            inplace=True,
            callbacks=report,
            callbacks_every_iters=_REPORT_EVERY,
        )
        if cancelled():
            raise LayoutCancelled
    coordinates = np.array(embedding, np.float32)
    coordinates -= (coordinates.max(axis=0) + coordinates.min(axis=0)) / 2
    return coordinates


def _gradient_method(count: int) -> str:
    return "fft" if count >= _FFT_FROM else "bh"


def _neighbours(vectors: Vectors, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The k nearest others of each vector, and their distances: (N, k) each."""
    import faiss

    vectors = np.ascontiguousarray(vectors)
    count, dimension = vectors.shape
    index: Any = faiss.IndexFlatL2(dimension)
    if count > _EXACT_NEIGHBOURS:
        index = faiss.index_factory(dimension, f"IVF{int(4 * count**0.5)},Flat")
        index.nprobe = _LISTS_SEARCHED
        index.cp.seed = _SEED + 1
        index.cp.max_points_per_centroid = 64
        index.cp.min_points_per_centroid = 1
        index.train(vectors)
    index.add(vectors)
    squares, found = index.search(vectors, k + 1)
    # Leave itself out; where equal vectors hide it, the last one.
    itself = found == np.arange(count)[:, None]
    itself[~itself.any(axis=1), -1] = True
    found, squares = found[~itself].reshape(count, k), squares[~itself].reshape(count, k)
    # An inverted file may find fewer: then the first one again, which changes nothing but its weight.
    absent = found < 0
    found = np.where(absent, np.where(found[:, :1] < 0, 0, found[:, :1]), found)
    squares = np.where(absent, 4.0, squares)
    return found, np.sqrt(np.maximum(squares, 0)).astype(np.float64)


class _StoredAffinities:
    """What openTSNE asks when it places vectors: their neighbours among those of a stored layout."""

    def __init__(self, vectors: Vectors) -> None:
        from scipy.sparse import csr_matrix

        self._vectors = vectors
        self.P = csr_matrix((len(vectors), len(vectors)))  # only its shape is looked at

    def to_new(
        self, data: Vectors, perplexity: float = _PLACING_PERPLEXITY, return_distances: bool = True
    ) -> tuple[Any, NDArray[np.int64], NDArray[np.float64]]:
        from openTSNE.affinity import joint_probabilities_nn

        count = len(self._vectors)
        k = min(count, 3 * _PLACING_PERPLEXITY)
        neighbours = np.empty((len(data), k), np.int64)
        distances = np.empty((len(data), k))
        for start in range(0, len(data), 256):
            scores = data[start : start + 256] @ self._vectors.T
            best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            best = np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1), 1)
            neighbours[start : start + 256] = best
            squares = 2 - 2 * np.take_along_axis(scores, best, 1)
            distances[start : start + 256] = np.sqrt(np.maximum(squares, 0))
        similar = joint_probabilities_nn(
            neighbours,
            distances,
            [min(perplexity, max(1.0, (k - 1) / 3))],
            symmetrize=False,
            normalization="point-wise",
            n_reference_samples=count,
        )
        return similar, neighbours, distances


def _place_by_neighbours(
    vectors: Vectors, layout: Layout, fitted: Callable[[Ids], Vectors]
) -> NDArray[np.float32]:
    """Place vectors on a t-SNE map, each by its neighbours there."""
    ids, coordinates = layout.ids[layout.fitted], layout.coordinates[layout.fitted]
    if len(ids) < FEWEST_FOR_TSNE or not len(vectors):
        middle = layout.box.mean(axis=0, dtype=np.float32)
        return np.repeat(middle[None], len(vectors), axis=0)
    import openTSNE

    middle = (coordinates.max(axis=0) + coordinates.min(axis=0)) / 2
    embedding = openTSNE.TSNEEmbedding(
        (coordinates - middle).astype(np.float64),
        _StoredAffinities(fitted(ids)),
        negative_gradient_method=_gradient_method(len(ids)),
        random_state=_SEED,
    )
    placed = embedding.transform(vectors, perplexity=_PLACING_PERPLEXITY)
    coordinates = np.array(placed, np.float32)
    coordinates += middle
    return coordinates
