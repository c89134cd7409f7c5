"""Variants of a query's picture, so that a photo is found whatever people did to it.

The picture as it is competes with itself without its borders, and if neither is clearly a photo of the
library, with three quarter turns. Only scores decide, so a photo whose sky is uniform loses nothing. Where a
projection guesses the vectors of turned pictures, only turns whose guess finds something are embedded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from PIL import Image

from vitmae_search.photos.borders import find_borders
from vitmae_search.photos.views import reduce_for_views
from vitmae_search.records import QueryVariant, ScoreCalibration

AS_IT_IS = QueryVariant()

_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
_STANDS_OUT = 0.6
"""A turned picture counts if its best hit is at most this share as far away, in 1 - cosine, as the best hit
of the upright one. Of 200 photos of which the library has no copy none then turns, and of 200 that are turned
by 90 or 180° at least 99 % do."""
_PROMISING = 0.4
"""Least score of a guessed turn's best hit, as a share of the way from chance's score to the same photo's."""
_BEHIND = 0.03
"""A guessed turn whose best hit scores so much less than another one's is not the right one. Of 2,700 turned
photos the right turn's was the best for 99.3 %, and at most 0.03 behind for the others."""


def upright_variants(image: Image.Image, input_size: int | None) -> dict[QueryVariant, Image.Image]:
    """The picture as it is and, if it has uniform borders, without them.

    Args:
        image: The picture, RGB.
        input_size: Side of the model's input in pixels, None where it names none; what is cut out of a large
            picture is reduced to twice that or more, which costs less.
    """
    box = find_borders(image)
    found = {AS_IT_IS: image}
    if box is not None:
        found[QueryVariant(trimmed=True)] = reduce_for_views(image.crop(box), input_size)
    return found


def turns(upright: QueryVariant) -> list[QueryVariant]:
    """The three quarter turns of an upright variant."""
    return [replace(upright, turned=degrees) for degrees in _TURNS]


def turned_variants(
    wanted: Iterable[QueryVariant], image: Image.Image, input_size: int | None
) -> dict[QueryVariant, Image.Image]:
    """Quarter turns of a picture.

    Args:
        wanted: Some of its `turns`.
        image: The picture, RGB.
        input_size: As for `upright_variants`.
    """
    small = reduce_for_views(image, input_size)
    return {variant: small.transpose(_TURNS[variant.turned]) for variant in wanted}


def best_upright(scores: Mapping[QueryVariant, float]) -> QueryVariant:
    """The upright variant with the best score, that of its best hit."""
    return max(scores, key=lambda variant: scores[variant])


def is_clear(score: float, calibration: ScoreCalibration | None) -> bool:
    """Whether a best hit is clearly the same photo, so that turning the picture is not worth its time.

    Args:
        score: Of the hit.
        calibration: The space's; without one no score is clear.
    """
    return calibration is not None and calibration.same is not None and score >= calibration.same


def likely_turns(
    score: float, guessed_scores: Mapping[QueryVariant, float], calibration: ScoreCalibration | None
) -> list[QueryVariant]:
    """The turns that are worth embedding: those whose guessed vectors find something.

    Args:
        score: Of the upright variant's best hit.
        guessed_scores: Those of the best hits of all three turns' guessed vectors.
        calibration: The space's; without one all turns are.
    """
    if calibration is None or calibration.same is None or calibration.alike is None:
        return list(guessed_scores)
    promising = calibration.alike + _PROMISING * (calibration.same - calibration.alike)
    least = max(score, promising, max(guessed_scores.values()) - _BEHIND)
    return [variant for variant, guessed in guessed_scores.items() if guessed >= least]


def best_turned(
    upright: QueryVariant, score: float, turned_scores: Mapping[QueryVariant, float]
) -> QueryVariant:
    """The turned variant whose best hit stands out, else the upright one.

    Args:
        upright: The upright variant.
        score: Of its best hit.
        turned_scores: Those of its turned variants' best hits; there may be none.
    """
    if not turned_scores:
        return upright
    turned = max(turned_scores, key=lambda variant: turned_scores[variant])
    stands_out = turned_scores[turned] > score and 1 - turned_scores[turned] <= _STANDS_OUT * (1 - score)
    return turned if stands_out else upright
