"""A linear discriminant with each photo as a class: between-photo variance against within-photo variance.

This is linear discriminant analysis with photos in place of labelled classes. The features are whitened by
the covariance of views about their photo, so that what a crop or a change of colors does counts for little.
Each principal axis of the photos is then weighted as in probabilistic LDA's two-covariance model (Ioffe,
"Probabilistic linear discriminant analysis", ECCV 2006). With views of variance 1 and photos of variance ρ
about the mean, the log-likelihood ratio of "same photo" against "different photos" multiplies two views x
and y as ρ/(1 + 2ρ)·x·y. The solution has a closed form and needs no labels but which views are of one photo.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import TrainingError
from vitmae_search.training.adaptation.whitening import principal_axes

_CHUNK = 1024
"""Photos at a time, so that memory-mapped features need not fit in memory."""
_MIN_RATIO = 1e-6
"""Least ρ of an axis that is kept."""

_Array = NDArray[np.float64]


def fit_discriminant(
    features: NDArray[np.floating], *, shrinkage: float = 0.02, dimension: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fit the affine map that best tells photos apart: `features @ weight.T + bias`.

    It is deterministic. The mapped vectors have a mean square length of D.

    Args:
        features: (N, V, F), of any floating type: V views of N photos; view 0 is the unchanged photo. May be
            memory-mapped.
        shrinkage: In (0, 1], of the views' covariance towards a multiple of the identity.
        dimension: D, the number of most discriminative axes to keep; None for all that discriminate.

    Returns:
        `weight` (D, F) and `bias` (D,), float32, with D ≤ F.

    Raises:
        TrainingError: There are fewer than two photos or views, the features have no variance or are not
            finite, or an argument is out of range.
    """
    if not 0 < shrinkage <= 1:
        raise TrainingError(f"the shrinkage {shrinkage} is not above 0 and at most 1")
    if dimension is not None and not 1 <= dimension <= features.shape[2]:
        raise TrainingError(f"{features.shape[2]} features cannot be projected to {dimension} dimensions")
    if min(features.shape[:2]) < 2:
        raise TrainingError("a discriminant needs two views each of at least two photos")
    mean, between, within = _covariances(features)
    whitening = _inverse_root(within, shrinkage)
    variance, axes = principal_axes(whitening @ between @ whitening)
    # The mean of V views has a variance of 1/V from the views alone.
    rho = np.maximum(variance - 1 / features.shape[1], 0)[:dimension]
    rho = rho[rho > _MIN_RATIO]
    if not len(rho):
        raise TrainingError("the views of one photo differ as much as photos do: nothing tells them apart")
    weight = np.sqrt(rho / (1 + 2 * rho))[:, None] * (axes[:, : len(rho)].T @ whitening)
    weight *= np.sqrt(len(rho) / np.trace(weight @ (between + within) @ weight.T))
    return weight.astype(np.float32), (-weight @ mean).astype(np.float32)


def _covariances(features: NDArray[np.floating]) -> tuple[_Array, _Array, _Array]:
    """The mean of view 0 (F,), the covariance of photo means (F, F), and that of views about them (F, F)."""
    count, views, width = features.shape
    within, between = np.zeros((width, width)), np.zeros((width, width))
    originals, offset = np.zeros(width), np.zeros(width)
    # Sums about a value near the mean lose no precision.
    near = features[:_CHUNK].astype(np.float64).mean(axis=(0, 1))
    for start in range(0, count, _CHUNK):
        chunk = features[start : start + _CHUNK].astype(np.float64)
        means = chunk.mean(axis=1)
        originals += chunk[:, 0].sum(axis=0) / count
        offset += (means - near).sum(axis=0) / count
        between += (means - near).T @ (means - near) / (count - 1)
        deviations = (chunk - means[:, None]).reshape(-1, width)
        within += deviations.T @ deviations / (count * (views - 1))
    if not np.isfinite(within).all():
        raise TrainingError("some features are not finite numbers")
    return originals, between - np.outer(offset, offset) * count / (count - 1), within


def _inverse_root(covariance: _Array, shrinkage: float) -> _Array:
    """The symmetric inverse square root of the shrunk covariance."""
    values, vectors = principal_axes(covariance)
    mean_value = values.mean()
    if mean_value <= np.finfo(np.float32).eps ** 2:
        raise TrainingError(
            "all views of a photo have the same features: there is nothing to learn from them"
        )
    scale = ((1 - shrinkage) * values + shrinkage * mean_value) ** -0.5
    root: _Array = (vectors * scale) @ vectors.T
    return root
