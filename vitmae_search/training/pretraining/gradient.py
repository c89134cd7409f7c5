"""The gradient of a batch's loss, whose parts are computed side by side."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vitmae_search.training.pretraining.batches import Batch
from vitmae_search.training.pretraining.objective import Objective, Outcome, contrast
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.training.pretraining.replicas import Replicas
from vitmae_search.training.pretraining.steps import Losses

Forward = Callable[[Objective, Batch], Outcome]


def batch_gradient(
    replicas: Replicas[Objective], batch: Batch, forward: Forward, options: PretrainOptions
) -> Losses:
    """Leave the gradient of the batch's loss in the first replica's parameters, and return the loss.

    The contrastive loss is over the whole batch, however many replicas share it.
    """
    parts = batch.split(len(replicas))
    shares = [len(part) / len(batch) for part in parts]
    replicas.clear_gradients()
    if options.contrastive:
        losses = _joint(replicas, parts, shares, forward, options)
    else:
        losses = _apart(replicas, parts, shares, forward, options)
    replicas.add_gradients()
    return losses


def _apart(
    replicas: Replicas[Objective],
    parts: list[Batch],
    shares: list[float],
    forward: Forward,
    options: PretrainOptions,
) -> Losses:
    def work(model: Objective, i: int) -> float:
        loss = forward(model, parts[i]).reconstruction
        assert loss is not None
        loss = loss * (shares[i] * options.reconstruction)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    return Losses(sum(replicas.each(work)))


def _joint(
    replicas: Replicas[Objective],
    parts: list[Batch],
    shares: list[float],
    forward: Forward,
    options: PretrainOptions,
) -> Losses:
    outcomes = replicas.each(lambda model, i: forward(model, parts[i]))
    projections = [part for _, part in outcomes if part is not None]
    contrastive, gradients = contrast(projections, options.temperature)

    def work(_: Objective, i: int) -> float:
        reconstruction = outcomes[i].reconstruction
        tensors: list[Tensor] = [projections[i]]
        seeds = [gradients[i] * options.contrastive]
        if reconstruction is not None:
            tensors.append(reconstruction)
            seeds.append(torch.full_like(reconstruction, shares[i] * options.reconstruction))
        torch.autograd.backward(tensors, seeds)
        return 0.0 if reconstruction is None else reconstruction.item() * shares[i]

    reconstructed = sum(replicas.each(work))
    loss = options.contrastive * contrastive + options.reconstruction * reconstructed
    return Losses(loss, reconstructed if options.reconstruction else None, contrastive)
