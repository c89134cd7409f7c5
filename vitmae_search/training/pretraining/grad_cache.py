"""The gradient of a batch that is computed in parts, and the losses of steps.

The losses stay on the device until they are logged. Reading one number from a GPU waits until it has done
everything queued, and it would then idle until the next step is queued.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from vitmae_search.training.distributed import DistributedContext
from vitmae_search.training.pretraining.batches import Batch
from vitmae_search.training.pretraining.cpu_replicas import CPUReplicas
from vitmae_search.training.pretraining.losses import Objective, ObjectiveOutput, info_nce_gradients
from vitmae_search.training.pretraining.options import PretrainOptions


class Losses(NamedTuple):
    """A batch's loss and, with a contrastive loss, the terms that it is the weighted sum of."""

    loss: float
    reconstruction: float | None = None
    contrastive: float | None = None


class StepResult(NamedTuple):
    """The losses and the gradient norm of one step."""

    losses: Losses
    gradient_norm: float

    def to_tuple(self) -> tuple[float | None, ...]:
        """Loss, gradient norm, reconstruction and contrastive loss, as the saved state has them."""
        return (self.losses.loss, self.gradient_norm, *self.losses[1:])

    @classmethod
    def from_tuple(cls, values: Sequence[float | None]) -> Self:
        """The inverse of `to_tuple`; the two terms may be missing."""
        loss, gradient_norm, *terms = values
        assert loss is not None
        assert gradient_norm is not None
        return cls(Losses(loss, *terms), gradient_norm)


def mean_result(results: Sequence[StepResult]) -> StepResult:
    """The mean of at least one step's results."""
    columns = zip(*(result.to_tuple() for result in results), strict=True)
    return StepResult.from_tuple([_mean(column) for column in columns])


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


class PendingStep(NamedTuple):
    """A step whose numbers are still on the device, all of them scalars.

    Attributes:
        reconstruction: Terms of this process's reconstruction loss, each with its weight.
        contrastive: The contrastive loss of the whole batch.
        gradient_norm: Norm of the whole batch's gradient.
    """

    reconstruction: Sequence[tuple[Tensor, float]]
    contrastive: Tensor | None = None
    gradient_norm: Tensor | None = None


class StepScalars(NamedTuple):
    """The numbers of a `PendingStep`, read, with the reconstruction terms summed up."""

    reconstruction: float
    contrastive: float | None
    gradient_norm: float


def fetch_scalars(steps: Sequence[PendingStep]) -> list[StepScalars]:
    """Read the numbers of several steps in one copy from the device."""
    scalars = [scalar for step in steps for scalar in _scalars(step)]
    values = iter(torch.stack([scalar.float() for scalar in scalars]).tolist() if scalars else ())
    return [
        StepScalars(
            sum(next(values) * weight for _, weight in step.reconstruction),
            None if step.contrastive is None else next(values),
            next(values),
        )
        for step in steps
    ]


def _scalars(step: PendingStep) -> list[Tensor]:
    assert step.gradient_norm is not None
    contrastive = () if step.contrastive is None else (step.contrastive,)
    return [*(term for term, _ in step.reconstruction), *contrastive, step.gradient_norm]


Forward = Callable[[Objective, Batch], ObjectiveOutput]


class BatchGradient:
    """Computes the gradient of a batch in `accumulate` rounds, shared by all replicas and processes.

    The contrastive loss compares all photos of the batch. With several rounds this is GradCache (Gao et al.
    2021, arXiv 2101.06983): the projections are computed first without a graph, then the loss and its
    gradient with respect to them, and then each part again with a graph. So the gradient does not depend,
    but for rounding, on how the batch is split.

    Args:
        replicas: The models that share the work.
        forward: Computes the objective of part of a batch.
        options: The run's options.
        distributed: The processes that share the batch.
    """

    def __init__(
        self,
        replicas: CPUReplicas[Objective],
        forward: Forward,
        options: PretrainOptions,
        distributed: DistributedContext,
    ) -> None:
        self._replicas, self._forward = replicas, forward
        self._options, self._distributed = options, distributed

    def __call__(self, batch: Batch) -> PendingStep:
        """Leave the gradient in the first replica's parameters; `batch` is this process's part."""
        parts = batch.split(self._options.accumulate * len(self._replicas))
        weights = [len(part) / self._options.batch_size for part in parts]
        self._replicas.zero_grad()
        backward = self._backward_both if self._options.contrastive else self._backward_reconstruction
        step = backward(parts, weights)
        self._replicas.sum_gradients()
        self._distributed.sum_gradients(list(self._replicas.parameters()))
        return step

    def fetch(self, steps: Sequence[PendingStep]) -> list[StepResult]:
        """The results of these steps, each a mean over the whole batch. Waits for the device."""
        scalars = fetch_scalars(steps)
        reconstructions = self._distributed.sum([step.reconstruction for step in scalars])
        return [
            StepResult(self._losses(reconstruction, step.contrastive), step.gradient_norm)
            for reconstruction, step in zip(reconstructions, scalars, strict=True)
        ]

    def _losses(self, reconstruction: float, contrastive: float | None) -> Losses:
        options = self._options
        if contrastive is None:
            return Losses(reconstruction)
        loss = options.contrastive * contrastive + options.reconstruction * reconstruction
        return Losses(loss, reconstruction if options.reconstruction else None, contrastive)

    def _backward_reconstruction(self, parts: Sequence[Batch], weights: Sequence[float]) -> PendingStep:
        def work(model: Objective, i: int) -> Tensor:
            loss = self._forward(model, parts[i]).reconstruction
            assert loss is not None
            loss = loss * (weights[i] * self._options.reconstruction)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        return PendingStep([(loss, 1.0) for loss in self._replicas.map(work, len(parts))])

    def _backward_both(self, parts: Sequence[Batch], weights: Sequence[float]) -> PendingStep:
        options = self._options
        outputs = self._forward_all(parts)
        projections = [_projections(output) for output in outputs]
        contrastive, gradients = info_nce_gradients(projections, options.temperature, self._distributed)

        def work(model: Objective, i: int) -> Tensor | None:
            output = outputs[i] if options.accumulate == 1 else self._forward(model, parts[i])
            tensors: list[Tensor] = [_projections(output)]
            tensor_gradients = [gradients[i] * options.contrastive]
            if output.reconstruction is not None:
                weight = weights[i] * options.reconstruction
                tensors.append(output.reconstruction)
                tensor_gradients.append(torch.full_like(output.reconstruction, weight))
            torch.autograd.backward(tensors, tensor_gradients)
            return None if output.reconstruction is None else output.reconstruction.detach()

        terms = zip(self._replicas.map(work, len(parts)), weights, strict=True)
        return PendingStep([(loss, weight) for loss, weight in terms if loss is not None], contrastive)

    def _forward_all(self, parts: Sequence[Batch]) -> list[ObjectiveOutput]:
        """The outputs of all parts; without graphs in several rounds, since only one graph fits in memory."""
        if self._options.accumulate == 1:
            return self._replicas.map(lambda model, i: self._forward(model, parts[i]), len(parts))

        @torch.no_grad()
        def work(model: Objective, i: int) -> ObjectiveOutput:
            return self._forward(model, parts[i])

        devices = [parameter.device for parameter in self._replicas.parameters() if parameter.is_cuda][:1]
        with torch.random.fork_rng(devices):  # the second forward pass must draw the same dropout
            return self._replicas.map(work, len(parts))


def _projections(output: ObjectiveOutput) -> Tensor:
    assert output.projections is not None
    return output.projections
