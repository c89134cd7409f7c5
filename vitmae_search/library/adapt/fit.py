"""Fit a projection to features of views, by a given method or by the best one on validation photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vitmae_search.embedding import Projection
from vitmae_search.errors import ConfigError
from vitmae_search.evaluation import instance_recall

ProjectionMethod = Literal["auto", "whitening", "discriminant", "head"]

_VALIDATION_SHARE = 0.1
_MAX_VALIDATION = 1000
_MAX_GALLERY = 10_000
"""Most photos that are searched when methods are compared."""
_HIDDEN_PER_DIMENSION = 3
"""Hidden units of the head: two for each dimension reproduce the discriminant at the start, one is free."""

ViewArray = NDArray[np.floating]
"""(N, V, F): V views of N photos, view 0 the photo as it is."""


@dataclass(frozen=True, slots=True)
class AdaptOptions:
    """How `adapt` learns.

    Attributes:
        photos: How many photos are drawn to learn from, 16 or more.
        views: Views of each of them, 2 or more.
        held_out: How many others are drawn to compare projections on, 8 or more.
        minutes: Limit of the time: fewer photos are encoded, and the head is trained for what is left.
        method: "auto" takes the one that does best on a tenth of the photos, kept for validation.
        dimension: Largest length of the new vectors.
        epochs: Of training the head.
        neighbours: Share of the head's training pairs that are a photo and a near one, in [0, 1).
        seed: Of the drawing and the training.

    Raises:
        ConfigError: A value is out of range.
    """

    photos: int = 2000
    views: int = 8
    held_out: int = 500
    minutes: float | None = None
    method: ProjectionMethod = "auto"
    dimension: int = 256
    epochs: int = 60
    neighbours: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for name, least in (("photos", 16), ("views", 2), ("held_out", 8), ("dimension", 1), ("epochs", 1)):
            if getattr(self, name) < least:
                raise ConfigError(name, getattr(self, name), f"must be at least {least}")
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigError("minutes", self.minutes, "must be greater than 0")
        if self.method not in get_args(ProjectionMethod):
            raise ConfigError(
                "method", self.method, f"must be one of {', '.join(get_args(ProjectionMethod))}"
            )
        if not 0 <= self.neighbours < 1:
            raise ConfigError("neighbours", self.neighbours, "must be in [0, 1)")
        if self.seed < 0:
            raise ConfigError("seed", self.seed, "must not be negative")


def validation_size(photos: int) -> int:
    """Return how many of the photos, the first ones, are kept to compare the methods on."""
    return min(_MAX_VALIDATION, max(2, round(_VALIDATION_SHARE * photos)))


@dataclass(frozen=True, slots=True, eq=False)
class ProjectionFit:
    """What a projection is fitted to, and how.

    Attributes:
        views: The photos to learn from; the first `validation_size(N)` of them are for validation.
        options: How to learn.
        stored: (M, F) features of a library, without the validation photos; whitening takes these instead.
        device: Where the head is trained.
        seconds: Limit of the head's training.
        on_epoch: Called with the head's epochs that are done, and with their number.
    """

    views: ViewArray
    options: AdaptOptions
    stored: NDArray[np.float32] | None = None
    device: str = "auto"
    seconds: float | None = None
    on_epoch: Callable[[int, int], None] = field(default=lambda done, total: None)

    def fit(self) -> Projection:
        """Fit by the chosen method; by "auto" with all methods, and take the one with the best recall.

        Raises:
            TrainingError: The photos are too few.
        """
        count = validation_size(len(self.views))
        validation, train = self.views[:count], self.views[count:]
        candidates = list(self._candidates(train, validation))
        if len(candidates) == 1:
            return candidates[0]
        gallery = np.concatenate([validation[:, 0], train[: _MAX_GALLERY - count, 0]]).astype(np.float32)
        return max(candidates, key=lambda one: _recall(one, gallery, validation))

    def _candidates(self, train: ViewArray, validation: ViewArray) -> Iterator[Projection]:
        from vitmae_search.training.adaptation import fit_discriminant, fit_whitening

        method, dimension = self.options.method, min(self.options.dimension, train.shape[2])
        if method in ("auto", "whitening"):
            originals = train[:, 0] if self.stored is None else self.stored
            weight, bias = fit_whitening(originals, dimension=dimension)
            yield self._projection("whitening", [weight], [bias], photos=len(originals))
        if method != "whitening":
            start = fit_discriminant(train, dimension=dimension)
            if method != "head":
                yield self._projection("discriminant", [start[0]], [start[1]], photos=len(train))
            if method != "discriminant":
                yield self._head(train, validation, start)

    def _head(
        self, train: ViewArray, validation: ViewArray, start: tuple[NDArray[np.float32], NDArray[np.float32]]
    ) -> Projection:
        from vitmae_search.training.adaptation import HeadOptions, train_head

        options = HeadOptions(
            hidden=_HIDDEN_PER_DIMENSION * len(start[1]),
            epochs=self.options.epochs,
            neighbours=self.options.neighbours,
            seed=self.options.seed,
            max_seconds=self.seconds,
        )
        layers = train_head(
            train,
            validation,
            start,
            options,
            device=self.device,
            on_progress=lambda progress: self.on_epoch(progress.epoch, progress.epochs),
        )
        weights, biases = zip(*layers, strict=True)
        return self._projection("head", weights, biases, photos=len(train))

    def _projection(
        self,
        kind: str,
        weights: list[NDArray[np.float32]] | tuple[NDArray[np.float32], ...],
        biases: list[NDArray[np.float32]] | tuple[NDArray[np.float32], ...],
        *,
        photos: int,
    ) -> Projection:
        values: dict[str, object] = {
            "photos": photos,
            "views_a_photo": self.views.shape[1],
            "seed": self.options.seed,
        }
        if kind == "head":
            values |= {"epochs": self.options.epochs, "neighbours": self.options.neighbours}
        provenance = {"made_by": "vitmae-search adapt"} | {name: str(v) for name, v in values.items()}
        return Projection(weights, biases, kind, provenance)


def _recall(projection: Projection, gallery: NDArray[np.float32], validation: ViewArray) -> float:
    """recall@1: how often a view of a validation photo is nearest to that photo, among all of `gallery`."""
    originals = projection(gallery)
    views = (projection(validation[:, view].astype(np.float32)) for view in range(1, validation.shape[1]))
    return float(np.mean([instance_recall(originals, queries).recall(1) for queries in views]))
