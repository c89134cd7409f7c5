"""The gradient of a batch's loss, whose parts are computed side by side or one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vitmae_search.training.distributed import Processes
from vitmae_search.training.pretraining.batches import Batch
from vitmae_search.training.pretraining.cpu_replicas import Replicas
from vitmae_search.training.pretraining.losses import Objective, Outcome, contrast
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.training.pretraining.steps import Losses, Step, Unread, read_numbers

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
