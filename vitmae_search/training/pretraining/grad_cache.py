"""The gradient of a batch's loss, whose parts are computed side by side or one after another.

What an update came to, and what several came to together.

It stays where it was computed until someone has to know: to read one number of a GPU is to wait until all is
done that was asked of it, and until the next step is asked for it has nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from vitmae_search.training.distributed import Processes
from vitmae_search.training.pretraining.batches import Batch
from vitmae_search.training.pretraining.cpu_replicas import Replicas
from vitmae_search.training.pretraining.losses import Objective, Outcome, contrast
from vitmae_search.training.pretraining.options import PretrainOptions


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


Forward = Callable[[Objective, Batch], Outcome]


class BatchGradient:
    """Computes the gradient of a batch in `accumulate` rounds, shared by all replicas and processes.

    The contrastive loss is over the whole batch, too: with several rounds the projections are computed
    first, without a graph, and again with it once the loss's gradient for each of them is known (GradCache,
    Gao et al. 2021, arXiv 2101.06983). So however a batch is cut, its gradient is the same but for rounding.
    """

    def __init__(
        self, replicas: Replicas[Objective], forward: Forward, options: PretrainOptions, processes: Processes
    ) -> None:
        self._replicas, self._forward = replicas, forward
        self._options, self._processes = options, processes

    def __call__(self, batch: Batch) -> Unread:
        """Leave the gradient in the first replica's parameters. `batch` is this process's part of it."""
        parts = batch.split(self._options.accumulate * len(self._replicas))
        shares = [len(part) / self._options.batch_size for part in parts]
        self._replicas.clear_gradients()
        losses = (self._with_contrast if self._options.contrastive else self._alone)(parts, shares)
        self._replicas.add_gradients()
        self._processes.add_gradients(list(self._replicas.parameters()))
        return losses

    def read(self, unread: Sequence[Unread]) -> list[Step]:
        """What these steps came to, each a mean over the whole batch; waits for the device."""
        numbers = read_numbers(unread)
        reconstructed = self._processes.total([step.reconstruction for step in numbers])
        return [
            Step(self._losses(whole, step.contrastive), step.gradient_norm)
            for whole, step in zip(reconstructed, numbers, strict=True)
        ]

    def _losses(self, reconstruction: float, contrastive: float | None) -> Losses:
        options = self._options
        if contrastive is None:
            return Losses(reconstruction)
        loss = options.contrastive * contrastive + options.reconstruction * reconstruction
        return Losses(loss, reconstruction if options.reconstruction else None, contrastive)

    def _alone(self, parts: Sequence[Batch], shares: Sequence[float]) -> Unread:
        def work(model: Objective, i: int) -> Tensor:
            loss = self._forward(model, parts[i]).reconstruction
            assert loss is not None
            loss = loss * (shares[i] * self._options.reconstruction)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        return Unread([(loss, 1.0) for loss in self._replicas.each(work, len(parts))])

    def _with_contrast(self, parts: Sequence[Batch], shares: Sequence[float]) -> Unread:
        options = self._options
        outcomes = self._ahead(parts)
        projections = [_projections(outcome) for outcome in outcomes]
        contrastive, gradients = contrast(projections, options.temperature, self._processes)

        def work(model: Objective, i: int) -> Tensor | None:
            outcome = outcomes[i] if options.accumulate == 1 else self._forward(model, parts[i])
            tensors: list[Tensor] = [_projections(outcome)]
            seeds = [gradients[i] * options.contrastive]
            if outcome.reconstruction is not None:
                tensors.append(outcome.reconstruction)
                seeds.append(torch.full_like(outcome.reconstruction, shares[i] * options.reconstruction))
            torch.autograd.backward(tensors, seeds)
            return None if outcome.reconstruction is None else outcome.reconstruction.detach()

        done = zip(self._replicas.each(work, len(parts)), shares, strict=True)
        return Unread([(loss, share) for loss, share in done if loss is not None], contrastive)

    def _ahead(self, parts: Sequence[Batch]) -> list[Outcome]:
        """Every part's outcome; in several rounds without its graph, of which only one would fit."""
        if self._options.accumulate == 1:
            return self._replicas.each(lambda model, i: self._forward(model, parts[i]), len(parts))

        @torch.no_grad()
        def work(model: Objective, i: int) -> Outcome:
            return self._forward(model, parts[i])

        devices = [parameter.device for parameter in self._replicas.parameters() if parameter.is_cuda][:1]
        with torch.random.fork_rng(devices):  # so that dropout, if any, is drawn again as it was
            return self._replicas.each(work, len(parts))


def _projections(outcome: Outcome) -> Tensor:
    assert outcome.projections is not None
    return outcome.projections
