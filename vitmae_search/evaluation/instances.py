"""Instance retrieval: finding a photo again after a change that people make. No labels are needed.

The kinds of change are fixed; only where and in which direction they act is drawn, from a seed of each photo.
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
"""Makes a new RGB image of an RGB image, with random numbers from the generator."""

_CHUNK = 1024  # queries compared at a time
_TIE_TOLERANCE = 1e-6  # smaller differences of cosines are rounding errors


def _crop(image: Image.Image, draws: Generator, *, area: float) -> Image.Image:
    x, y = draws.random(2)
    return views.crop(image, area=area, position=(float(x), float(y)))


def _corner_crop(image: Image.Image, draws: Generator, *, side: float) -> Image.Image:
    x, y = draws.integers(2, size=2)
    return views.crop(image, area=side**2, position=(float(x), float(y)))


def _recolour(image: Image.Image, draws: Generator) -> Image.Image:
    brightness, contrast, saturation = 1 + draws.uniform(0.2, 0.4, 3) * draws.choice([-1, 1], 3)
    turned = views.hue(image, degrees=float(draws.uniform(18, 36) * draws.choice([-1, 1])))
    return views.tone(turned, brightness=brightness, contrast=contrast, saturation=saturation)


def _filter(image: Image.Image, draws: Generator) -> Image.Image:
    return views.color_filter(image, tint=_FILTER_TINTS[draws.integers(len(_FILTER_TINTS))])


def _sticker(image: Image.Image, draws: Generator) -> Image.Image:
    x, y = draws.random(2)
    return views.sticker(image, position=(float(x), float(y)))


def _fixed(image: Image.Image, draws: Generator, *, view: views.View) -> Image.Image:
    return view(image)


_FILTER_TINTS = ((1.1, 1.0, 0.8), (0.8, 1.0, 1.1), (1.1, 0.85, 1.05))  # warm, cool, pink
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)

INSTANCE_VIEWS: tuple[tuple[str, InstanceView], ...] = (
    ("crop-40", partial(_crop, area=0.4)),
    ("crop-80", partial(_crop, area=0.8)),
    ("corner-crop", partial(_corner_crop, side=0.35)),
    ("rotated+15", partial(_fixed, view=partial(views.tilt, degrees=15))),
    ("rotated-15", partial(_fixed, view=partial(views.tilt, degrees=-15))),
    ("rotated+15-corners", partial(_fixed, view=partial(views.tilt, degrees=15, fill=_BLACK))),
    ("rotated+90", partial(_fixed, view=views.quarter_turn)),
    ("rotated-90", partial(_fixed, view=partial(views.quarter_turn, turns=-1))),
    ("mirrored", partial(_fixed, view=views.mirror)),
    ("recoloured", _recolour),
    ("filter", _filter),
    ("grey", partial(_fixed, view=views.grey)),
    ("jpeg-20", partial(_fixed, view=partial(views.recompress, quality=20))),
    ("jpeg-5-small", partial(_fixed, view=partial(views.recompress, quality=5, longest=240))),
    ("sticker", _sticker),
    ("margin", partial(_fixed, view=views.margin)),
    ("screenshot-black", partial(_fixed, view=partial(views.phone_screenshot, color=_BLACK))),
    ("screenshot-white", partial(_fixed, view=partial(views.phone_screenshot, color=_WHITE))),
    ("viewer-window", partial(_fixed, view=views.viewer_window)),
)
"""The kinds of change, by name.

A crop keeps 40 or 80 % of the area, anywhere, in the picture's proportions, and a corner crop 35 % of each
side, from any corner; a rotation by 15° cuts its corners off, or shows them black; recoloured means
brightness, contrast and saturation each changed by 20 to 40 % and the hue turned by 18 to 36°, either way; a
filter is warm, cool or pink, with faded blacks and dark corners; a JPEG has quality 20, or 5 and at most 240
pixels a side; a sticker is a line of text on white, 60 % of the width wide; a margin is white, 10 % of the
longer side; a phone's screenshot has black or white bars above and below and a status bar; a viewer's
window a bar and edges.
"""

SAME_PHOTO = tuple(
    name
    for name, _ in INSTANCE_VIEWS
    if name not in {"crop-40", "corner-crop", "rotated+15", "rotated-15", "rotated+15-corners", "mirrored"}
)
"""The kinds of change after which people call it the same photo: those of near-duplicates."""

SAME_UPRIGHT_PHOTO = tuple(
    name
    for name in SAME_PHOTO
    if name
    not in {"rotated+90", "rotated-90", "margin", "screenshot-black", "screenshot-white", "viewer-window"}
)
"""Those of them that a search does not undo, by cutting off borders or turning, before it compares."""


def instance_views(image: Image.Image, seed: int | Sequence[int]) -> Iterator[tuple[str, Image.Image]]:
    """Each of `INSTANCE_VIEWS` of an image, by name.

    Args:
        image: An RGB image.
        seed: Equal seeds give equal pictures.
    """
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
        """(N,): the probability that each query's original is in the first `k`; a fraction only in a tie."""
        return np.clip((k - self.better) / (1 + self.equal), 0.0, 1.0)

    def recall(self, k: int) -> float:
        """The share of queries whose original is among the first `k`."""
        return float(self.hits(k).mean())


def instance_recall(gallery: NDArray[np.float32], queries: NDArray[np.float32]) -> InstanceRanks:
    """The rank of each query's original among the gallery, by cosine.

    Args:
        gallery: (M, D), of any length. Row i is the original of query i; rows beyond N are distractors.
        queries: (N, D), 0 < N ≤ M, of any length.

    Raises:
        ValueError: The shapes do not fit, or there is no query.
    """
    if gallery.ndim != 2 or queries.ndim != 2 or gallery.shape[1] != queries.shape[1]:
        raise ValueError(f"gallery {gallery.shape} and queries {queries.shape} must be (M, D) and (N, D)")
    if not 0 < len(queries) <= len(gallery):
        raise ValueError(f"{len(queries)} queries for {len(gallery)} originals: each query has its own")
    originals, units = unit_rows(gallery), unit_rows(queries)
    better = np.empty(len(units), np.int64)
    equal = np.empty(len(units), np.int64)
    for start in range(0, len(units), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(units)))
        scores = units[rows] @ originals.T
        own = scores[np.arange(len(rows)), rows][:, None]
        better[rows] = (scores > own + _TIE_TOLERANCE).sum(axis=1)
        equal[rows] = (np.abs(scores - own) <= _TIE_TOLERANCE).sum(axis=1) - 1  # less itself
    return InstanceRanks(better, equal)
