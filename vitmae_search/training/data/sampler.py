"""Which photos a step sees: a function of the seed and the step.

Nothing random is carried from step to step, so a run that resumes at a step goes on exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Normalisation:
    """Mean and deviation of each channel, for pixels in 0 to 1."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self._mean = torch.tensor(mean).view(-1, 1, 1) * 255
        self._std = torch.tensor(std).view(-1, 1, 1) * 255

    def __call__(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) float32 in 0 to 255, normalised."""
        if self._mean.device != pixels.device:  # once: a copy to a GPU would wait for it at every call
            self._mean, self._std = self._mean.to(pixels.device), self._std.to(pixels.device)
        return (pixels - self._mean) / self._std


class EpochStream:
    """`count` rows again and again, shuffled anew in each epoch."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self._seed = count, seed
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def rows(self, start: int, count: int) -> NDArray[np.int64]:
        """Rows start … start + count of all epochs laid end to end, each shuffled in its own way."""
        epochs, within = np.divmod(np.arange(start, start + count), self.count)
        chosen = np.empty(count, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            chosen[here] = self._epoch(int(epoch))[within[here]]
        return chosen

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        if self._order is None or self._order[0] != epoch:
            shuffle = np.random.default_rng((self._seed, epoch))
            self._order = epoch, shuffle.permutation(self.count)
        return self._order[1]


def step_seed(seed: int, step: int) -> int:
    """A seed of 63 bits for one step, unrelated to its neighbours'."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))
