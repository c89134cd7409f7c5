"""The order in which photos are seen: a function of the seed and the step.

No random state is carried from step to step, so a run that resumes at any step continues exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class EpochSampler:
    """An endless sequence of the rows 0 to `count` - 1, shuffled anew in each epoch.

    Args:
        count: Rows of the data set.
        seed: Determines every epoch's order.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self._seed = count, seed
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def rows(self, start: int, count: int) -> NDArray[np.int64]:
        """A section of all epochs laid end to end.

        Args:
            start: Position of the first row in the sequence.
            count: How many rows; they may span epochs.
        """
        epochs, within = np.divmod(np.arange(start, start + count), self.count)
        rows = np.empty(count, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            rows[here] = self._epoch_order(int(epoch))[within[here]]
        return rows

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng((self._seed, epoch))
            self._order = epoch, rng.permutation(self.count)
        return self._order[1]


def step_seed(seed: int, step: int) -> int:
    """A seed of 63 bits for one step, independent of other steps' seeds.

    Args:
        seed: The run's seed.
        step: The step's number.
    """
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))
