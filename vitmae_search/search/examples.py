"""A query of several pictures: photos that are like some of them, and less like others.

The query's vector is the weighted mean of the pictures that are wanted, less a share of the mean of those
that are not (J. J. Rocchio, "Relevance feedback in information retrieval", 1971). A hit's score is a cosine
with it, so hits are ranked by their mean score with the wanted pictures, less that share of the mean score
with the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import LibraryError
from vitmae_search.records import Words
from vitmae_search.search.query import Query

Picture = Query | int | Words
"""A path, a file's bytes, an image, the id of a photo of the library, or words."""

Example = Picture | tuple[Picture, float]
"""A picture, and how much it counts; 1 without a number."""

LESS = 0.25
"""What a picture with weight 1 counts that hits should be less like. More of it loses wanted photos, too."""


def weighted(example: Example) -> tuple[Picture, float]:
    """The picture and its weight.

    Raises:
        LibraryError: The weight is not above 0.
    """
    picture, weight = example if isinstance(example, tuple) else (example, 1.0)
    if not (math.isfinite(weight) and weight > 0):
        raise LibraryError(f"a picture's weight is a number above 0, not {weight}")
    return picture, float(weight)


def combine(
    more: Sequence[NDArray[np.float32]],
    less: Sequence[NDArray[np.float32]],
    more_weights: Sequence[float],
    less_weights: Sequence[float],
) -> NDArray[np.float32]:
    """The vector of a query of several pictures.

    Args:
        more: (D,) unit vectors of pictures that hits should be like, at least one.
        less: (D,) unit vectors of those that hits should be less like.
        more_weights: The weight of each of `more`; only their ratios count.
        less_weights: The weight of each of `less`; 1 / `LESS` counts as much as all of `more`.

    Returns:
        (D,) float32, of unit length.

    Raises:
        LibraryError: The pictures cancel each other out.
    """
    vector = np.average(np.stack(more).astype(np.float64), axis=0, weights=more_weights)
    if less:
        vector -= LESS * np.mean(np.stack(less) * np.asarray(less_weights)[:, None], axis=0)
    length = float(np.linalg.norm(vector))
    if length < 1e-6:
        raise LibraryError("these pictures cancel each other out; leave one out, or change a weight")
    return (vector / length).astype(np.float32)
