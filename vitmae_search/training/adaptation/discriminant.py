"""A linear discriminant with each photo as a class of its own: what its views share, against how they differ.

Linear discriminant analysis with photos in place of people: the features are whitened by the covariance of
views about their photo, so that what a crop or a change of colours does counts for little. Then each
principal axis of the photos is weighed by what it tells in the two-covariance model (Ioffe, "Probabilistic
linear discriminant analysis", ECCV 2006), where views spread by 1 and photos by ρ about the mean: the
log-likelihood ratio of "same photo" against "different photos" joins two views x and y by ρ/(1 + 2ρ)·x·y.
It has a closed form, and no label is needed but which views are of one photo.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import TrainingError
from vitmae_search.training.adaptation.whitening import principal_axes

_CHUNK = 1024  # photos at a time, so that memory-mapped features need not fit in memory

_Array = NDArray[np.float64]


def fit_discriminant(
    features: NDArray[np.floating], *, shrinkage: float = 0.02, dimension: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`weight` (D, F) and `bias` (D,), float32, of the map that tells photos apart.

    `features` (N, V, F), any floating type, maybe memory-mapped: V views of N photos, which view 0 shows as
    they are. `shrinkage` in (0, 1] draws the covariance of views towards a multiple of the identity.
    `dimension` keeps the axes that tell most; None keeps all that tell anything, so that D ≤ F. The mapped
    vectors have a mean square length of D. The same features give the same map.
    Raises `TrainingError` for fewer than two photos or two views, features without spread or not finite, and
    values out of range.
    """
    if not 0 < shrinkage <= 1:
        raise TrainingError(f"the shrinkage {shrinkage} is not above 0 and at most 1")
    if dimension is not None and not 1 <= dimension <= features.shape[2]:
        raise TrainingError(f"{features.shape[2]} features cannot be projected to {dimension} dimensions")
    if min(features.shape[:2]) < 2:
        raise TrainingError("a discriminant needs two views each of at least two photos")
    mean, between, within = _covariances(features)
    sphere = _inverse_root(within, shrinkage)
    spread, axes = principal_axes(sphere @ between @ sphere)
    rho = np.maximum(spread - 1 / features.shape[1], 0)[:dimension]  # a mean of V views spreads by 1/V, too
    rho = rho[rho > 1e-6]
    if not len(rho):
        raise TrainingError("the views of one photo differ as much as photos do: nothing tells them apart")
    weight = np.sqrt(rho / (1 + 2 * rho))[:, None] * (axes[:, : len(rho)].T @ sphere)
    weight *= np.sqrt(len(rho) / np.trace(weight @ (between + within) @ weight.T))
    return weight.astype(np.float32), (-weight @ mean).astype(np.float32)


def _covariances(features: NDArray[np.floating]) -> tuple[_Array, _Array, _Array]:
    """The mean of view 0, (F,), and the covariances of the photos' means and of views about them, (F, F)."""
    count, views, width = features.shape
    within, between = np.zeros((width, width)), np.zeros((width, width))
    originals, offset = np.zeros(width), np.zeros(width)
    near = features[:_CHUNK].astype(np.float64).mean(axis=(0, 1))  # sums about it do not cancel
    for start in range(0, count, _CHUNK):
        some = features[start : start + _CHUNK].astype(np.float64)
        means = some.mean(axis=1)
        originals += some[:, 0].sum(axis=0) / count
        offset += (means - near).sum(axis=0) / count
        between += (means - near).T @ (means - near) / (count - 1)
        about = (some - means[:, None]).reshape(-1, width)
        within += about.T @ about / (count * (views - 1))
    if not np.isfinite(within).all():
        raise TrainingError("some features are not finite numbers")
    return originals, between - np.outer(offset, offset) * count / (count - 1), within


def _inverse_root(covariance: _Array, shrinkage: float) -> _Array:
    """The symmetric inverse square root of the shrunk covariance."""
    values, vectors = principal_axes(covariance)
    average = values.mean()
    if average <= np.finfo(np.float32).eps ** 2:
        raise TrainingError(
            "all views of a photo have the same features: there is nothing to learn from them"
        )
    scale = ((1 - shrinkage) * values + shrinkage * average) ** -0.5
    root: _Array = (vectors * scale) @ vectors.T
    return root
