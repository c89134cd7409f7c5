"""Confidence intervals of a mean over photos, by resampling them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def interval(
    values: ArrayLike, *, level: float = 0.95, samples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of the mean of `values` (N,), low and high.

    For the difference of two methods, pass the photo-by-photo differences.
    """
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or numbers.size == 0:
        raise ValueError(f"values must be (N,) and not empty, not {numbers.shape}")
    draws = np.random.default_rng(seed)
    means = np.empty(samples)
    for i in range(samples):  # one at a time: (samples, N) would not fit for a large library
        means[i] = numbers[draws.integers(0, numbers.size, numbers.size)].mean()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
