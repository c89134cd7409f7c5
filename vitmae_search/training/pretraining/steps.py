"""What an update came to, and what several came to together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self


class Losses(NamedTuple):
    """A batch's loss and, with a contrastive one, the terms that it is the weighted sum of."""

    loss: float
    reconstruction: float | None = None
    contrastive: float | None = None


class Step(NamedTuple):
    """One update."""

    losses: Losses
    gradient_norm: float

    def to_tuple(self) -> tuple[float | None, ...]:
        """Loss, gradient norm, and the loss's terms."""
        return (self.losses.loss, self.gradient_norm, *self.losses[1:])

    @classmethod
    def of(cls, loss: float, gradient_norm: float, *terms: float | None) -> Self:
        """As `to_tuple` gives them; the terms may be left out."""
        return cls(Losses(loss, *terms), gradient_norm)


def mean_step(steps: Sequence[Step]) -> Step:
    """The mean of at least one."""
    loss, norm, *terms = (_mean(column) for column in zip(*(s.to_tuple() for s in steps), strict=True))
    assert loss is not None
    assert norm is not None
    return Step.of(loss, norm, *terms)


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None
