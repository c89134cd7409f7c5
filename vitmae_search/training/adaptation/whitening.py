"""PCA-whitening: an affine map that gives every direction of the features the same say.

Unlabelled features share a few strong directions (brightness, say) that drown the many weak ones in every
cosine. Dividing each principal axis by its deviation evens them out (Jégou & Chum, "Negative evidences and
co-occurrences in image retrieval: the benefit of PCA and whitening", ECCV 2012). The weakest axes are
mostly noise, so the eigenvalues are first drawn towards their mean (the linear shrinkage of Ledoit & Wolf,
"A well-conditioned estimator for large-dimensional covariance matrices", 2004).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import TrainingError

_CHUNK = 8192  # rows at a time, so that memory-mapped features need not fit in memory
_SMALLEST = 1e-12  # of the mean eigenvalue: an axis without any spread, where nothing is shrunk


def fit_whitening(
    features: NDArray[np.floating], *, shrinkage: float = 0.3, dimension: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`weight` (D, F) and `bias` (D,), float32: `features @ weight.T + bias` is whitened.

    `features` (N, F), any floating type, may be memory-mapped. `shrinkage` in [0, 1]: 0 whitens fully,
    1 only centres and turns. `dimension` D keeps the strongest axes; None keeps all. The same features
    give the same map, axes by falling variance, each turned so that its largest entry is positive.
    Raises `TrainingError` for fewer than two rows, features without spread or not finite, and values out
    of range.
    """
    count, width = features.shape
    if not 0 <= shrinkage <= 1:
        raise TrainingError(f"the shrinkage {shrinkage} is not between 0 and 1")
    if dimension is not None and not 1 <= dimension <= width:
        raise TrainingError(f"{width} features cannot be projected to {dimension} dimensions")
    if count < 2:
        raise TrainingError("whitening needs the features of at least two photos")
    mean, covariance = _moments(features)
    values, vectors = principal_axes(covariance)
    if values[0] <= np.finfo(np.float32).eps ** 2 * (1 + mean @ mean):
        raise TrainingError("the photos' features are all alike: there is nothing to whiten")
    average = values.mean()
    shrunk = (1 - shrinkage) * values + shrinkage * average
    scale = 1 / np.sqrt(np.maximum(shrunk, _SMALLEST * average))
    weight = (vectors * scale).T[:dimension]
    return weight.astype(np.float32), (-weight @ mean).astype(np.float32)


def _moments(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and covariance, in float64 and in two passes: the one-pass formula cancels."""
    count, width = features.shape
    chunks = [slice(start, start + _CHUNK) for start in range(0, count, _CHUNK)]
    mean = np.zeros(width)
    for rows in chunks:
        mean += features[rows].astype(np.float64).sum(axis=0) / count
    if not np.isfinite(mean).all():
        raise TrainingError("some features are not finite numbers")
    covariance = np.zeros((width, width))
    for rows in chunks:
        centred = features[rows].astype(np.float64) - mean
        covariance += centred.T @ centred / (count - 1)
    return mean, covariance


def principal_axes(covariance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues, falling and not negative, and their unit eigenvectors as columns."""
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.sign(vectors[largest, np.arange(len(values))])
    return values, vectors * signs
