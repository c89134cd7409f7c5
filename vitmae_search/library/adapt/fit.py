"""From features of views to a projection: each method's, and which one finds photos set aside the best."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vitmae_search.embedding import Projection
from vitmae_search.errors import ConfigError
from vitmae_search.evaluation import instance_recall

Method = Literal["auto", "whitening", "discriminant", "head"]

_ASIDE = 0.1
_MOST_ASIDE = 1000
_GALLERY = 10_000  # photos that stand in the way when methods are compared, at most
_HIDDEN = 3  # units of the head for each dimension: twice as many make the start, the others are free

Features = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class AdaptOptions:
    """How `adapt` learns. Raises `ConfigError`.

    `photos` are drawn by `seed` to learn from, each in `views` views, and `held_out` others to compare with.
    `minutes` bounds the time: then fewer photos are encoded, and the head trains for what is left. `method`
    "auto" takes the one that finds a tenth of the photos, set aside, the best. `dimension` is the most that
    the vectors get; `epochs` and `neighbours` (the share of pairs with a near photo) are the head's.
    """

    photos: int = 2000
    views: int = 8
    held_out: int = 500
    minutes: float | None = None
    method: Method = "auto"
    dimension: int = 256
    epochs: int = 60
    neighbours: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("photos", 16), ("views", 2), ("held_out", 8), ("dimension", 1), ("epochs", 1)):
            if getattr(self, name) < least:
                raise ConfigError(name, getattr(self, name), f"must be at least {least}")
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigError("minutes", self.minutes, "must be greater than 0")
        if self.method not in get_args(Method):
            raise ConfigError("method", self.method, f"must be one of {', '.join(get_args(Method))}")
        if not 0 <= self.neighbours < 1:
            raise ConfigError("neighbours", self.neighbours, "must be in [0, 1)")
        if self.seed < 0:
            raise ConfigError("seed", self.seed, "must not be negative")


def set_aside(photos: int) -> int:
    """How many of the photos, the first ones, are not learned from: the methods are compared on them."""
    return min(_MOST_ASIDE, max(2, round(_ASIDE * photos)))


@dataclass(frozen=True, slots=True, eq=False)
class Fitting:
    """What a projection is fitted to.

    `views` (N, V, F) are the photos to learn from, view 0 as they are. `stored` (M, F) are a library's
    features, which whitening takes instead; the first `set_aside(N)` photos must not be among them. `device`
    and `seconds` are for the head; `on_pass` is called with its passes done and in all.
    """

    views: Features
    options: AdaptOptions
    stored: NDArray[np.float32] | None = None
    device: str = "auto"
    seconds: float | None = None
    on_pass: Callable[[int, int], None] = field(default=lambda done, total: None)

    def projection(self) -> Projection:
        """The method's projection, or of all methods' the one that finds most. Raises `TrainingError`."""
        count = set_aside(len(self.views))
        aside, train = self.views[:count], self.views[count:]
        candidates = list(self._candidates(train, aside))
        if len(candidates) == 1:
            return candidates[0]
        gallery = np.concatenate([aside[:, 0], train[: _GALLERY - count, 0]]).astype(np.float32)
        return max(candidates, key=lambda one: _found(one, gallery, aside))

    def _candidates(self, train: Features, aside: Features) -> Iterator[Projection]:
        from vitmae_search.training.adaptation import fit_discriminant, fit_whitening

        method, width = self.options.method, min(self.options.dimension, train.shape[2])
        if method in ("auto", "whitening"):
            plain = train[:, 0] if self.stored is None else self.stored
            weight, bias = fit_whitening(plain, dimension=width)
            yield self._made("whitening", [weight], [bias], photos=len(plain))
        if method != "whitening":
            start = fit_discriminant(train, dimension=width)
            if method != "head":
                yield self._made("discriminant", [start[0]], [start[1]], photos=len(train))
            if method != "discriminant":
                yield self._head(train, aside, start)

    def _head(
        self, train: Features, aside: Features, start: tuple[NDArray[np.float32], NDArray[np.float32]]
    ) -> Projection:
        from vitmae_search.training.adaptation import HeadOptions, train_head

        options = HeadOptions(
            hidden=_HIDDEN * len(start[1]),
            epochs=self.options.epochs,
            neighbours=self.options.neighbours,
            seed=self.options.seed,
            max_seconds=self.seconds,
        )
        maps = train_head(
            train,
            aside,
            start,
            options,
            device=self.device,
            on_progress=lambda moment: self.on_pass(moment.epoch, moment.epochs),
        )
        weights, biases = zip(*maps, strict=True)
        return self._made("head", weights, biases, photos=len(train))

    def _made(
        self,
        kind: str,
        weights: list[NDArray[np.float32]] | tuple[NDArray[np.float32], ...],
        biases: list[NDArray[np.float32]] | tuple[NDArray[np.float32], ...],
        *,
        photos: int,
    ) -> Projection:
        told = {"photos": photos, "views_a_photo": self.views.shape[1], "seed": self.options.seed}
        if kind == "head":
            told |= {"epochs": self.options.epochs, "neighbours": self.options.neighbours}
        provenance = {"made_by": "vitmae-search adapt"} | {name: str(value) for name, value in told.items()}
        return Projection(weights, biases, kind, provenance)


def _found(projection: Projection, gallery: NDArray[np.float32], aside: Features) -> float:
    """How often a view of a photo set aside is nearest to its photo, among all as they are."""
    originals = projection(gallery)
    views = (projection(aside[:, view].astype(np.float32)) for view in range(1, aside.shape[1]))
    return float(np.mean([instance_recall(originals, some).recall(1) for some in views]))
