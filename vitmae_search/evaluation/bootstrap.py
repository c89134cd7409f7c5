"""Confidence intervals by the percentile bootstrap: photos are drawn again and again, with replacement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
SAMPLES = 1000
_CHUNK_NUMBERS = 1 << 20  # numbers drawn at a time


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def figure(values: NDArray[np.float64]) -> Figure:
    """The mean of `values`, one for each photo, (N,), with its interval."""
    return Figure(float(np.mean(values)), *interval(values))


def interval(
    values: ArrayLike, *, level: float = LEVEL, samples: int = SAMPLES, seed: int = 0
) -> tuple[float, float]:
    """The bootstrap interval of a mean, low and high.

    For the difference of two methods, pass the photo-by-photo differences.

    Args:
        values: (N,), one value for each photo.
        level: The interval's confidence, 0 to 1.
        samples: How often the photos are drawn.
        seed: What is drawn.

    Raises:
        ValueError: `values` is empty, or not one-dimensional.
    """
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or numbers.size == 0:
        raise ValueError(f"values must be (N,) and not empty, not {numbers.shape}")
    draws = np.random.default_rng(seed)
    together = max(1, _CHUNK_NUMBERS // numbers.size)  # (samples, N) would not fit for a large library
    means = [
        numbers[draws.integers(0, numbers.size, (min(together, samples - done), numbers.size))].mean(axis=1)
        for done in range(0, samples, together)
    ]
    return percentiles(np.concatenate(means), level)


def percentiles(means: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """The interval that holds the middle share of bootstrap samples, low and high.

    Args:
        means: (S,), the mean of each sample.
        level: The share, 0 to 1.
    """
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
