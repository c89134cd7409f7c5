"""Linear maps that guess, from a picture's vector, the vectors of the picture turned by quarter turns.

A ridge regression (Hoerl & Kennard 1970) on photos that were embedded turned: mean and deviation of a
picture's patch tokens change much alike for all pictures when it is turned.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import TrainingError

_QUARTERS = (90, 180, 270)
_RIDGE = 0.03
"""What is added to each direction's variance, as a share of the mean."""


def fit_turns(vectors: Mapping[int, NDArray[np.floating]]) -> NDArray[np.float16]:
    """Fit the maps from vectors to those of the pictures turned left by 90, 180 and 270°.

    All pairs of orientations whose difference is the turn are fitted together.

    Args:
        vectors: By degrees to the left, (N, D) unit rows of the same N photos; 0, 90 and 270 at least.

    Returns:
        (3, D, D): `vectors @ maps[i]` are about the turned ones' but for their length.

    Raises:
        TrainingError: An orientation is missing.
    """
    if not {0, 90, 270} <= set(vectors):
        raise TrainingError("turns are fitted to photos as they are, and turned by 90 and by 270°")
    return np.stack([_fit(vectors, degrees) for degrees in _QUARTERS]).astype(np.float16)


def _fit(vectors: Mapping[int, NDArray[np.floating]], degrees: int) -> NDArray[np.float64]:
    pairs = [(angle, (angle + degrees) % 360) for angle in vectors if (angle + degrees) % 360 in vectors]
    before = np.concatenate([vectors[angle] for angle, _ in pairs]).astype(np.float64)
    after = np.concatenate([vectors[turned] for _, turned in pairs]).astype(np.float64)
    products = before.T @ before
    ridge = _RIDGE * np.trace(products) / len(products) * np.eye(len(products))
    found: NDArray[np.float64] = np.linalg.solve(products + ridge, before.T @ after)
    return found
