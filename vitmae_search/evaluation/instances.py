"""Finding a photo again after a change that a person would make: no labels are needed.

The kinds of change are fixed, and only their place and direction are drawn, from a seed of the photo's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.evaluation.knn import unit_rows
from vitmae_search.photos import views

InstanceView = Callable[[Image.Image, Generator], Image.Image]
"""An RGB image, and what is drawn from, to a new RGB image."""

_CHUNK = 1024  # queries compared at a time
_SAME_SCORE = 1e-6  # cosines that differ by less differ by rounding


def _crop(image: Image.Image, draws: Generator, *, area: float) -> Image.Image:
    x, y = draws.random(2)
    return views.crop(image, area=area, position=(float(x), float(y)))


def _recolour(image: Image.Image, draws: Generator) -> Image.Image:
    brightness, contrast, saturation = 1 + draws.uniform(0.2, 0.4, 3) * draws.choice([-1, 1], 3)
    turned = views.hue(image, degrees=float(draws.uniform(18, 36) * draws.choice([-1, 1])))
    return views.tone(turned, brightness=brightness, contrast=contrast, saturation=saturation)


def _fixed(image: Image.Image, draws: Generator, *, view: views.View) -> Image.Image:
    return view(image)


INSTANCE_VIEWS: tuple[tuple[str, InstanceView], ...] = (
    ("crop-40", partial(_crop, area=0.4)),
    ("crop-80", partial(_crop, area=0.8)),
    ("rotated+15", partial(_fixed, view=partial(views.tilt, degrees=15))),
    ("rotated-15", partial(_fixed, view=partial(views.tilt, degrees=-15))),
    ("rotated+15-corners", partial(_fixed, view=partial(views.tilt, degrees=15, fill=(0, 0, 0)))),
    ("recoloured", _recolour),
    ("grey", partial(_fixed, view=views.grey)),
    ("jpeg-20", partial(_fixed, view=partial(views.recompress, quality=20))),
    ("screenshot", partial(_fixed, view=views.screenshot)),
    ("mirrored", partial(_fixed, view=views.mirror)),
)
"""The kinds of change, by name.

A crop keeps 40 or 80 % of the area, anywhere, in the picture's proportions; a rotation by 15° cuts its
corners off, or shows them black; recoloured means brightness, contrast and saturation each changed by 20 to
40 % and the hue turned by 18 to 36°, either way; a JPEG has quality 20; a screenshot has a viewer's bar and
edges.
"""

SAME_PHOTO = ("crop-80", "recoloured", "grey", "jpeg-20", "screenshot")
"""The kinds that a person would call the same photo, when looking for near-duplicates."""


def instance_views(image: Image.Image, seed: int | Sequence[int]) -> Iterator[tuple[str, Image.Image]]:
    """Each of `INSTANCE_VIEWS` of an RGB image, by name. Equal seeds give equal pictures."""
    seeds = np.random.SeedSequence(seed).spawn(len(INSTANCE_VIEWS))
    for (name, view), own in zip(INSTANCE_VIEWS, seeds, strict=True):
        yield name, view(image, np.random.default_rng(own))


@dataclass(frozen=True, slots=True, eq=False)
class InstanceRanks:
    """How each query found its original: two counts a query, (N,) int64.

    `better` are the other photos that score higher than the original, and `equal` those that score the
    same: a search may show any of them first.
    """

    better: NDArray[np.int64]
    equal: NDArray[np.int64]

    def hits(self, k: int) -> NDArray[np.float64]:
        """For each query how likely its original is among the first `k`, 0 to 1: a fraction only in a tie."""
        return np.clip((k - self.better) / (1 + self.equal), 0.0, 1.0)

    def recall(self, k: int) -> float:
        """The share of queries whose original is among the first `k`."""
        return float(self.hits(k).mean())


def instance_recall(gallery: NDArray[np.float32], queries: NDArray[np.float32]) -> InstanceRanks:
    """Rank for each query row its original, which is the gallery's row of the same number, by cosine.

    `gallery` is (M, D) and `queries` (N, D), N ≤ M: the rows beyond N only stand in the way. Vectors need
    not have unit length. Raises `ValueError` for shapes that do not fit, and for no query.
    """
    if gallery.ndim != 2 or queries.ndim != 2 or gallery.shape[1] != queries.shape[1]:
        raise ValueError(f"gallery {gallery.shape} and queries {queries.shape} must be (M, D) and (N, D)")
    if not 0 < len(queries) <= len(gallery):
        raise ValueError(f"{len(queries)} queries for {len(gallery)} originals: each query has its own")
    originals, asked = unit_rows(gallery), unit_rows(queries)
    better = np.empty(len(asked), np.int64)
    equal = np.empty(len(asked), np.int64)
    for start in range(0, len(asked), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(asked)))
        scores = asked[rows] @ originals.T
        own = scores[np.arange(len(rows)), rows][:, None]
        better[rows] = (scores > own + _SAME_SCORE).sum(axis=1)
        equal[rows] = (np.abs(scores - own) <= _SAME_SCORE).sum(axis=1) - 1  # less itself
    return InstanceRanks(better, equal)
