"""The retrieval head: a small network over pooled features of a frozen encoder, learned from views alone.

Two views of a photo attract, the other photos of the batch repel: InfoNCE, in both directions (van den Oord
et al., "Representation learning with contrastive predictive coding", 2018; Chen et al., "A simple framework
for contrastive learning", 2020). A share of the pairs may take a near photo's view for the second (after
Dwibedi et al., "With a little help from my friends: nearest-neighbor contrastive learning", 2021).

The head begins as a linear map that is known to be good, the discriminant of the views, written as two
affine maps with a ReLU between: x = relu(x) - relu(-x). So training improves on it, and the photos set
aside say when it no longer does.
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
from vitmae_search.training.data.sampler import EpochStream, step_seed
from vitmae_search.training.optim import adamw, progress_at, rate_factor, set_rate
from vitmae_search.vitmae import choose_device

_CHUNK = 1024  # rows at a time where all are gone through
_VALIDATED = 1024  # photos set aside that the loss is taken of, at most: it needs a square of them
_NEAR = 5  # nearest photos that one is drawn from

AffineMap = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Weight (out, in) and bias (out,)."""


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """`hidden` units, at least twice the output's; `neighbours` is the share of pairs with a near photo.

    `learning_rate` is AdamW's peak, after `warmup` as a share of the training; `epochs` count passes over
    the photos, and `max_seconds` ends earlier, the schedule with it. Raises `ConfigError`.
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
    """The state after a pass: the loss of its steps, and that on the photos set aside, in nats."""

    epoch: int
    epochs: int
    loss: float
    held_loss: float


def train_head(
    features: NDArray[np.floating],
    aside: NDArray[np.floating],
    start: AffineMap,
    options: HeadOptions | None = None,
    *,
    device: str = "cpu",
    on_progress: Callable[[HeadProgress], None] | None = None,
) -> tuple[AffineMap, AffineMap]:
    """The head's two affine maps, (hidden, F) and (D, hidden), a ReLU between them.

    `features` (N, V, F) and `aside` (M, V, F), any floating type, maybe memory-mapped, are V views of N
    photos to learn from and of M others; view 0 is the photo as it is. `start` (D, F) is the map to begin as.
    The weights of the pass with the least loss on `aside` are kept, those of the start among them. On a CPU
    equal arguments give equal maps. `device` is one of `choose_device`'s. What `on_progress` raises ends
    the training. Raises `TrainingError` for too few photos or views and for a loss that is not
    finite, `ConfigError` for a hidden layer that is too narrow, and `DeviceError`.
    """
    options = options or HeadOptions()
    if len(features) < 2 or len(aside) < 2 or features.shape[1] < 2:
        raise TrainingError("a head needs two views each of at least two photos, and of two set aside")
    run = _HeadRun(features, aside[:_VALIDATED], start, options, choose_device(device))
    run.train(on_progress)
    return run.maps()


class _HeadRun:
    """One training: the network over the frozen start, its optimiser, and the best weights so far."""

    def __init__(
        self,
        features: NDArray[np.floating],
        aside: NDArray[np.floating],
        start: AffineMap,
        options: HeadOptions,
        device: torch.device,
    ) -> None:
        self._features, self._aside, self._options = features, aside, options
        self._device = device
        self._start = tuple(torch.from_numpy(array).to(device) for array in start)
        self._net = _Head(len(start[1]), options).to(device)
        self._optimizer = adamw(
            self._net, rate=options.learning_rate, betas=(0.9, 0.999), weight_decay=options.weight_decay
        )
        self._batch = min(options.batch_size, len(features))
        self._stream = EpochStream(len(features), options.seed)
        self._near = self._neighbours() if options.neighbours else None
        self._best = self._held_loss(), copy.deepcopy(self._net.state_dict())

    def train(self, on_progress: Callable[[HeadProgress], None] | None) -> None:
        """All passes, or as many as fit into the time."""
        began = time.monotonic()
        rounds = len(self._features) // self._batch
        for epoch in range(self._options.epochs):
            total = 0.0
            for step in range(epoch * rounds, (epoch + 1) * rounds):
                seconds = time.monotonic() - began
                share = progress_at(step, self._options.epochs * rounds, seconds, self._options.max_seconds)
                if share >= 1:
                    return
                total += self._step(epoch, step, rate_factor(share, self._options.warmup))
            held = self._held_loss()
            if held < self._best[0]:
                self._best = held, copy.deepcopy(self._net.state_dict())
            if on_progress is not None:
                on_progress(HeadProgress(epoch + 1, self._options.epochs, total / rounds, held))

    def maps(self) -> tuple[AffineMap, AffineMap]:
        """The best weights, with the start folded into the first map."""
        self._net.load_state_dict(self._best[1])
        first, second = (layer.double().cpu() for layer in (self._net.first, self._net.second))
        weight, bias = (tensor.double().cpu() for tensor in self._start)
        folded = first.weight @ weight, first.weight @ bias + first.bias
        return _as_arrays(*folded), _as_arrays(second.weight, second.bias)

    def _step(self, epoch: int, step: int, factor: float) -> float:
        """One update; its loss."""
        count, views = self._features.shape[:2]
        within = step % (count // self._batch) * self._batch
        photos = self._stream.rows(epoch * count + within, self._batch)  # of one pass, so each comes once
        draws = np.random.default_rng((self._options.seed, step))
        first = draws.integers(views, size=self._batch)
        second = (first + draws.integers(1, views, size=self._batch)) % views
        partners = photos
        if self._near is not None:
            near = self._near[photos, draws.integers(self._near.shape[1], size=self._batch)]
            partners = np.where(draws.random(self._batch) < self._options.neighbours, near, photos)
        loss = _info_nce(
            self._net(self._started(self._features[photos, first])),
            self._net(self._started(self._features[partners, second])),
            self._options.temperature,
        )
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"the head's loss is {loss.item()} at step {step}: training stops; try a lower learning rate"
            )
        set_rate(self._optimizer, self._options.learning_rate * factor)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.item()

    @torch.inference_mode()
    def _held_loss(self) -> float:
        """The loss between the photos set aside as they are and each of their views, in turn."""
        originals, *views = (
            self._net(self._started(self._aside[:, view])) for view in range(self._aside.shape[1])
        )
        losses = [_info_nce(originals, view, self._options.temperature).item() for view in views]
        return sum(losses) / len(losses)

    def _started(self, rows: NDArray[np.floating]) -> Tensor:
        """(n, F) features after the frozen first map, (n, D) float32 on the device."""
        weight, bias = self._start
        return functional.linear(torch.from_numpy(rows.astype(np.float32)).to(self._device), weight, bias)

    def _neighbours(self) -> NDArray[np.int64]:
        """For each photo its nearest others in the space that training begins in, (N, ≤ 5)."""
        count = len(self._features)
        chunks = [slice(start, start + _CHUNK) for start in range(0, count, _CHUNK)]
        unit = torch.cat([functional.normalize(self._started(self._features[rows, 0])) for rows in chunks])
        near = []
        for rows in chunks:
            scores = unit[rows] @ unit.T
            own = torch.arange(len(scores), device=scores.device)
            scores[own, rows.start + own] = -math.inf
            near.append(scores.topk(min(_NEAR, count - 1)).indices.cpu())
        return torch.cat(near).numpy()


class _Head(nn.Module):
    """Two affine maps with a ReLU between, which begin as the identity; the other units are at random."""

    def __init__(self, width: int, options: HeadOptions) -> None:
        super().__init__()
        if options.hidden < 2 * width:
            raise ConfigError("hidden", options.hidden, f"must be at least {2 * width}, twice the dimension")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step_seed(options.seed, 0))
            self.first, self.second = nn.Linear(width, options.hidden), nn.Linear(options.hidden, width)
        both = torch.cat([torch.eye(width), -torch.eye(width)])
        with torch.no_grad():
            self.first.weight[: 2 * width] = both
            self.second.weight.zero_()
            self.second.weight[:, : 2 * width] = both.T
            self.first.bias.zero_()
            self.second.bias.zero_()

    def forward(self, values: Tensor) -> Tensor:
        """(n, width) to (n, width)."""
        out: Tensor = self.second(functional.relu(self.first(values)))
        return out


def _info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """(n, D) twice: row i of the one is the right answer for row i of the other, each way."""
    scores = functional.normalize(first) @ functional.normalize(second).T / temperature
    right = torch.arange(len(scores), device=scores.device)
    return (functional.cross_entropy(scores, right) + functional.cross_entropy(scores.T, right)) / 2


def _as_arrays(weight: Tensor, bias: Tensor) -> AffineMap:
    return weight.detach().float().numpy(), bias.detach().float().numpy()
