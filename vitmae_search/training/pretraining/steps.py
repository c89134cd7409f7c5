"""What an update came to, and what several came to together.

It stays where it was computed until someone has to know: to read one number of a GPU is to wait until all is
done that was asked of it, and until the next step is asked for it has nothing to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor


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


class Unread(NamedTuple):
    """One update whose numbers are still on the device, all of them scalars.

    `reconstruction` are parts of this process's share of it, and what each counts.
    """

    reconstruction: Sequence[tuple[Tensor, float]]
    contrastive: Tensor | None = None
    gradient_norm: Tensor | None = None


class Numbers(NamedTuple):
    """As `Unread`, read: the reconstruction is the sum of the parts."""

    reconstruction: float
    contrastive: float | None
    gradient_norm: float


def read_numbers(steps: Sequence[Unread]) -> list[Numbers]:
    """In one copy from the device."""
    scalars = [scalar for step in steps for scalar in _scalars(step)]
    values = iter(torch.stack([scalar.float() for scalar in scalars]).tolist() if scalars else ())
    return [
        Numbers(
            sum(next(values) * share for _, share in step.reconstruction),
            None if step.contrastive is None else next(values),
            next(values),
        )
        for step in steps
    ]


def _scalars(step: Unread) -> list[Tensor]:
    assert step.gradient_norm is not None
    others = () if step.contrastive is None else (step.contrastive,)
    return [*(part for part, _ in step.reconstruction), *others, step.gradient_norm]


def mean_step(steps: Sequence[Step]) -> Step:
    """The mean of at least one."""
    loss, norm, *terms = (_mean(column) for column in zip(*(s.to_tuple() for s in steps), strict=True))
    assert loss is not None
    assert norm is not None
    return Step.of(loss, norm, *terms)


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None
