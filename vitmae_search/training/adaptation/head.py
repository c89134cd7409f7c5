"""The retrieval head: a small network on a frozen encoder's pooled features, trained on views alone.

The loss is InfoNCE in both directions (van den Oord et al., "Representation learning with contrastive
predictive coding", 2018; Chen et al., "A simple framework for contrastive learning", 2020): two views of a
photo attract, the other photos of the batch repel. A share of the pairs may use a view of a near photo as
the second one (after Dwibedi et al., "With a little help from my friends: nearest-neighbor contrastive
learning", 2021).

The head is initialised as a linear map that is known to be good, the discriminant of the views, written as
two affine maps with a ReLU between them: x = relu(x) - relu(-x). Training improves on it until the loss on
held-out photos no longer falls.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vitmae_search.errors import ConfigError, TrainingError
from vitmae_search.training.data.sampler import EpochSampler, step_seed
from vitmae_search.training.optim import adamw, set_learning_rate, training_progress, warmup_cosine
from vitmae_search.vitmae import choose_device

_CHUNK = 1024
"""Rows at a time in passes over all photos."""
_MAX_HELD_OUT = 1024
"""Held-out photos that the loss is computed on, at most; it needs a square matrix of them."""
_NEIGHBOURS = 5
"""Nearest photos, one of which is drawn."""

AffineMap = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Weight (out, in) and bias (out,)."""


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """Options of the training.

    Attributes:
        hidden: Hidden units, at least twice the output dimension.
        epochs: Passes over the photos.
        batch_size: Photos of a step; at most all of them.
        learning_rate: AdamW's peak rate.
        weight_decay: AdamW's.
        warmup: Share of the training in which the rate rises.
        temperature: Divides the similarities.
        neighbours: Share of the pairs whose second view is of a near photo, in [0, 1).
        seed: Determines everything random.
        max_seconds: Time limit, which the schedule follows; None for none.

    Raises:
        ConfigError: A value is out of range.
    """

    hidden: int = 768
    epochs: int = 60
    batch_size: int = 512
    learning_rate: float = 3e-4
    weight_decay: float = 0.05
    warmup: float = 0.05
    temperature: float = 0.07
    neighbours: float = 0.0
    seed: int = 0
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "temperature"):
            if not getattr(self, name) > 0:
                raise ConfigError(name, getattr(self, name), "must be greater than 0")
        for name in ("warmup", "neighbours"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(name, getattr(self, name), "must be in [0, 1)")
        if self.batch_size < 2:
            raise ConfigError("batch_size", self.batch_size, "must be at least 2: others must repel")


@dataclass(frozen=True, slots=True)
class HeadProgress:
    """The state after an epoch.

    Attributes:
        epoch: Epochs done.
        epochs: Epochs in all.
        loss: Mean over the epoch's steps, in nats.
        held_loss: On the held-out photos, in nats.
    """

    epoch: int
    epochs: int
    loss: float
    held_loss: float


def train_head(
    features: NDArray[np.floating],
    held_out: NDArray[np.floating],
    initial: AffineMap,
    options: HeadOptions | None = None,
    *,
    device: str = "cpu",
    on_progress: Callable[[HeadProgress], None] | None = None,
) -> tuple[AffineMap, AffineMap]:
    """Train the head, and keep the weights with the least loss on held-out photos.

    The initial map is among the candidates. On a CPU equal arguments give equal maps. What `on_progress`
    raises ends the training.

    Args:
        features: (N, V, F), of any floating type: V views of N photos; view 0 is the unchanged photo. May be
            memory-mapped.
        held_out: (M, V, F), the same of M other photos.
        initial: The map (D, F) that the head starts as.
        options: Defaults if None.
        device: As for `choose_device`.
        on_progress: Called after each epoch.

    Returns:
        The head's two affine maps, (hidden, F) and (D, hidden), with a ReLU between them.

    Raises:
        TrainingError: There are too few photos or views, or a loss is not finite.
        ConfigError: The hidden layer is too narrow.
        DeviceError: The device is not available.
    """
    options = options or HeadOptions()
    if len(features) < 2 or len(held_out) < 2 or features.shape[1] < 2:
        raise TrainingError("a head needs two views each of at least two photos, and of two set aside")
    trainer = _HeadTrainer(features, held_out[:_MAX_HELD_OUT], initial, options, choose_device(device))
    trainer.train(on_progress)
    return trainer.maps()


class _HeadTrainer:
    """The network on top of the frozen initial map, its optimiser, and the best weights so far."""

    def __init__(
        self,
        features: NDArray[np.floating],
        held_out: NDArray[np.floating],
        initial: AffineMap,
        options: HeadOptions,
        device: torch.device,
    ) -> None:
        self._features, self._held_out, self._options = features, held_out, options
        self._device = device
        self._initial = tuple(torch.from_numpy(array).to(device) for array in initial)
        self._net = _Head(len(initial[1]), options).to(device)
        self._optimizer = adamw(
            self._net, rate=options.learning_rate, betas=(0.9, 0.999), weight_decay=options.weight_decay
        )
        self._batch_size = min(options.batch_size, len(features))
        self._sampler = EpochSampler(len(features), options.seed)
        self._neighbours = self._find_neighbours() if options.neighbours else None
        self._best = self._held_loss(), copy.deepcopy(self._net.state_dict())

    def train(self, on_progress: Callable[[HeadProgress], None] | None) -> None:
        """Train for all epochs, or as many as fit into the time limit."""
        started = time.monotonic()
        options = self._options
        steps_per_epoch = len(self._features) // self._batch_size
        total_steps = options.epochs * steps_per_epoch
        for epoch in range(options.epochs):
            total = 0.0
            for step in range(epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch):
                seconds = time.monotonic() - started
                progress = training_progress(step, total_steps, seconds, options.max_seconds)
                if progress >= 1:
                    return
                total += self._step(epoch, step, warmup_cosine(progress, options.warmup))
            held_loss = self._held_loss()
            if held_loss < self._best[0]:
                self._best = held_loss, copy.deepcopy(self._net.state_dict())
            if on_progress is not None:
                on_progress(HeadProgress(epoch + 1, options.epochs, total / steps_per_epoch, held_loss))

    def maps(self) -> tuple[AffineMap, AffineMap]:
        """The best weights, with the initial map folded into the first layer."""
        self._net.load_state_dict(self._best[1])
        first, second = (layer.double().cpu() for layer in (self._net.first, self._net.second))
        weight, bias = (tensor.double().cpu() for tensor in self._initial)
        folded = first.weight @ weight, first.weight @ bias + first.bias
        return _as_arrays(*folded), _as_arrays(second.weight, second.bias)

    def _step(self, epoch: int, step: int, factor: float) -> float:
        """Run one step and return its loss."""
        count, views = self._features.shape[:2]
        size = self._batch_size
        offset = step % (count // size) * size
        photos = self._sampler.rows(epoch * count + offset, size)  # within one epoch, so all are distinct
        rng = np.random.default_rng((self._options.seed, step))
        first = rng.integers(views, size=size)
        second = (first + rng.integers(1, views, size=size)) % views
        partners = photos
        if self._neighbours is not None:
            near = self._neighbours[photos, rng.integers(self._neighbours.shape[1], size=size)]
            partners = np.where(rng.random(size) < self._options.neighbours, near, photos)
        loss = _info_nce(
            self._net(self._apply_initial(self._features[photos, first])),
            self._net(self._apply_initial(self._features[partners, second])),
            self._options.temperature,
        )
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"the head's loss is {loss.item()} at step {step}: training stops; try a lower learning rate"
            )
        set_learning_rate(self._optimizer, self._options.learning_rate * factor)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.item()

    @torch.inference_mode()
    def _held_loss(self) -> float:
        """The mean loss between the unchanged held-out photos and each of their views."""
        views = range(self._held_out.shape[1])
        originals, *changed = (self._net(self._apply_initial(self._held_out[:, view])) for view in views)
        losses = [_info_nce(originals, view, self._options.temperature).item() for view in changed]
        return sum(losses) / len(losses)

    def _apply_initial(self, rows: NDArray[np.floating]) -> Tensor:
        """Features (n, F) mapped by the frozen initial map to (n, D) float32 on the device."""
        weight, bias = self._initial
        return functional.linear(torch.from_numpy(rows.astype(np.float32)).to(self._device), weight, bias)

    def _find_neighbours(self) -> NDArray[np.int64]:
        """(N, ≤ 5): the nearest other photos of each in the space of the initial map."""
        count = len(self._features)
        chunks = [slice(start, start + _CHUNK) for start in range(0, count, _CHUNK)]
        unit = torch.cat(
            [functional.normalize(self._apply_initial(self._features[rows, 0])) for rows in chunks]
        )
        neighbours = []
        for rows in chunks:
            scores = unit[rows] @ unit.T
            own = torch.arange(len(scores), device=scores.device)
            scores[own, rows.start + own] = -math.inf
            neighbours.append(scores.topk(min(_NEIGHBOURS, count - 1)).indices.cpu())
        return torch.cat(neighbours).numpy()


class _Head(nn.Module):
    """Two affine maps with a ReLU between them, initialised as the identity; further units are random."""

    def __init__(self, width: int, options: HeadOptions) -> None:
        super().__init__()
        if options.hidden < 2 * width:
            raise ConfigError("hidden", options.hidden, f"must be at least {2 * width}, twice the dimension")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step_seed(options.seed, 0))
            self.first, self.second = nn.Linear(width, options.hidden), nn.Linear(options.hidden, width)
        signs = torch.cat([torch.eye(width), -torch.eye(width)])
        with torch.no_grad():
            self.first.weight[: 2 * width] = signs
            self.second.weight.zero_()
            self.second.weight[:, : 2 * width] = signs.T
            self.first.bias.zero_()
            self.second.bias.zero_()

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, width) to (n, width)."""
        out: Tensor = self.second(functional.relu(self.first(vectors)))
        return out


def _info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE of two (n, D): row i of one matches row i of the other."""
    scores = functional.normalize(first) @ functional.normalize(second).T / temperature
    target = torch.arange(len(scores), device=scores.device)
    return (functional.cross_entropy(scores, target) + functional.cross_entropy(scores.T, target)) / 2


def _as_arrays(weight: Tensor, bias: Tensor) -> AffineMap:
    return weight.detach().float().numpy(), bias.detach().float().numpy()
