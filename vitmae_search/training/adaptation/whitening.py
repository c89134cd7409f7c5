"""PCA whitening: an affine map that gives every direction of the features the same variance.

A few strong directions of the features (of brightness, for example) dominate every cosine similarity.
Dividing each principal axis by its standard deviation evens them out (Jégou & Chum, "Negative evidences and
co-occurrences in image retrieval: the benefit of PCA and whitening", ECCV 2012). The weakest axes are
mostly noise, so the eigenvalues are first shrunk towards their mean (linear shrinkage, Ledoit & Wolf,
"A well-conditioned estimator for large-dimensional covariance matrices", 2004).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import TrainingError

_CHUNK = 8192
"""Rows at a time, so that memory-mapped features need not fit in memory."""
_MIN_VARIANCE = 1e-12
"""Least variance of an axis, as a share of the mean; matters only without shrinkage."""


def fit_whitening(
    features: NDArray[np.floating], *, shrinkage: float = 0.3, dimension: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fit the affine map that whitens features: `features @ weight.T + bias`.

    It is deterministic. Axes are in order of decreasing variance, and the largest entry of each is positive.

    Args:
        features: (N, F), of any floating type; may be memory-mapped.
        shrinkage: In [0, 1]. 0 whitens fully, 1 only centres and rotates.
        dimension: D, the number of strongest axes to keep; None for all F.

    Returns:
        `weight` (D, F) and `bias` (D,), float32.

    Raises:
        TrainingError: There are fewer than two rows, they are all alike or not finite, or an argument is out
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
    mean_value = values.mean()
    shrunk = (1 - shrinkage) * values + shrinkage * mean_value
    scale = 1 / np.sqrt(np.maximum(shrunk, _MIN_VARIANCE * mean_value))
    weight = (vectors * scale).T[:dimension]
    return weight.astype(np.float32), (-weight @ mean).astype(np.float32)


def _moments(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and covariance, in float64 and in two passes; the one-pass formula loses precision."""
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
    """Eigenvalues in decreasing order, clipped at 0, and their unit eigenvectors as columns."""
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.sign(vectors[largest, np.arange(len(values))])
    return values, vectors * signs
