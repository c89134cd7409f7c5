"""The features of patches: as colors, as similarities, and how layers change them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import InspectionError
from vitmae_search.records import Inspection

_CUT = 2.0
"""Percent of the patches whose colors are cut off at each end, so that a few do not make all others grey."""


def patch_features(made: Inspection, layer: int) -> NDArray[np.float32]:
    """The patches' features after a layer, as directions.

    Args:
        made: Of a picture.
        layer: 0 (before the first layer) to the model's depth.

    Returns:
        (gh·gw, D) float32 rows of unit length, the mean over the picture's patches included.

    Raises:
        InspectionError: There is no such layer.
    """
    depth = len(made.tokens) - 1
    if not 0 <= layer <= depth:
        raise InspectionError(f"The model has layers 0 to {depth}, not {layer}.")
    return _unit_rows(made.tokens[layer, 1:])


def feature_colors(pictures: Sequence[Inspection], layer: int) -> list[NDArray[np.uint8]]:
    """Features after a layer as colors: their first three principal components as red, green and blue.

    The components are of all pictures together, so the same thing has the same color in each of them.

    Args:
        pictures: Of one model.
        layer: 0 to the model's depth.

    Returns:
        (gh, gw, 3) uint8 for each picture.

    Raises:
        InspectionError: There is no such layer.
    """
    features = [patch_features(made, layer).astype(np.float64) for made in pictures]
    together = np.concatenate(features)
    mean = together.mean(axis=0)
    _, _, components = np.linalg.svd(together - mean, full_matrices=False)
    axes = components[:3]
    # SVD leaves the sign open; the largest entry of each component is made positive.
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    values = [(rows - mean) @ axes.T for rows in features]
    low, high = np.percentile(np.concatenate(values), [_CUT, 100 - _CUT], axis=0)
    span = np.where(high > low, high - low, 1)
    levels = [np.clip((rows - low) / span, 0, 1) for rows in values]
    padded = [np.pad(rows, ((0, 0), (0, 3 - rows.shape[1]))) for rows in levels]
    return [
        (255 * rows).round().astype(np.uint8).reshape(*made.grid, 3)
        for rows, made in zip(padded, pictures, strict=True)
    ]


def patch_similarity(made: Inspection, other: Inspection, layer: int) -> NDArray[np.float32]:
    """Cosines of the patches of two pictures after a layer.

    The mean of both pictures' patches is taken away first: all patches have much in common, such as what says
    only that they are patches.

    Args:
        made: One picture.
        other: The other, of the same model; may be the same.
        layer: 0 to the model's depth.

    Returns:
        (P, P') float32.

    Raises:
        InspectionError: There is no such layer.
    """
    one, two = patch_features(made, layer), patch_features(other, layer)
    mean = np.concatenate([one, two]).mean(axis=0)
    return (_unit_rows(one - mean) @ _unit_rows(two - mean).T).astype(np.float32)


def layer_changes(made: Inspection) -> NDArray[np.float32]:
    """How much each layer changes the patches: 1 - the mean cosine of a patch before and after it.

    Args:
        made: Of a picture.

    Returns:
        (depth,) float32.
    """
    states = np.stack([_unit_rows(state[1:]) for state in made.tokens])
    changes: NDArray[np.float32] = 1 - (states[1:] * states[:-1]).sum(axis=2).mean(axis=1)
    return changes


def _unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1)).astype(np.float32)
