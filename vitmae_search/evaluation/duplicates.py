"""Near-duplicates: how well a threshold on the score separates copies of a photo from other photos.

Every pair of a changed photo and an original counts; it is a duplicate if the photo was made from that
original.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitmae_search.evaluation.bootstrap import SAMPLES, Figure, percentiles
from vitmae_search.evaluation.knn import unit_rows
from vitmae_search.records import ScoreCalibration

PRECISE = 0.99
THRESHOLDS = 1000
"""At most this many thresholds are tried, with equal steps of the recall between them."""
MIN_CALIBRATION_PHOTOS = 100
_CHUNK = 256  # queries compared at a time
_SAMPLES_AT_A_TIME = 50  # of the bootstrap
_DECIMALS = 6  # of a score: smaller differences are rounding errors

_Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class DuplicateScores:
    """The precision/recall curve over thresholds, and what is read off it.

    `scores` (T,) are thresholds, falling; `precision` and `recall` (T,) are those of all pairs with at least
    that score. `best_f1` is the greatest harmonic mean of the two, at `best_score`. `precise_score` is the
    lowest score at which 99 % of the pairs are right, and `precise_recall` the share of the copies found
    there; without such a score it is None, and the recall 0. `chance_score` is the threshold with the largest
    difference between the recall and the share of wrong pairs that pass, Youden's index: from there
    downwards a score is likelier for two different photos than for one and its copy. It is None where
    no threshold tells them apart, and at most `precise_score`. `photos` is the number of originals.
    """

    scores: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    average_precision: Figure
    best_f1: Figure
    best_score: float
    precise_recall: Figure
    precise_score: float | None
    chance_score: float | None
    photos: int

    @property
    def calibration(self) -> ScoreCalibration | None:
        """What the scores mean; None for fewer photos than it takes to tell one in a hundred."""
        if self.photos < MIN_CALIBRATION_PHOTOS:
            return None
        same, alike = (
            None if score is None else round(score, 4) for score in (self.precise_score, self.chance_score)
        )
        return ScoreCalibration(same, alike, self.photos)


def duplicate_scores(
    gallery: NDArray[np.float32], queries: NDArray[np.float32], *, seed: int = 0
) -> DuplicateScores:
    """Precision and recall of duplicates, over thresholds on the cosine.

    There are K·N right pairs among K·N², so the precision is that of a search through N photos. Intervals
    are over photos.

    Args:
        gallery: (N, D), the originals.
        queries: (K, N, D), K views of each original.
        seed: What the bootstrap draws.

    Raises:
        ValueError: The shapes do not fit, or there is a single photo.
    """
    if queries.ndim != 3 or queries.shape[1:] != gallery.shape or len(gallery) < 2 or not len(queries):
        raise ValueError(f"queries {queries.shape} and gallery {gallery.shape} must be (K, N, D) and (N, D)")
    thresholds, right, wrong = _counts(unit_rows(gallery), [unit_rows(view) for view in queries])
    once = np.ones((1, len(gallery)))
    precision, recall = _curve(once @ right, once @ wrong)
    best = int(_f1(precision, recall)[0].argmax())
    precise = np.flatnonzero(precision[0] >= PRECISE)
    precise_score = float(thresholds[precise[-1]]) if len(precise) else None
    values = _read_off(precision, recall)[:, 0]
    samples = np.concatenate(list(_samples(right, wrong, seed)), axis=1)
    figures = [Figure(float(v), *percentiles(s)) for v, s in zip(values, samples, strict=True)]
    return DuplicateScores(
        scores=thresholds,
        precision=precision[0],
        recall=recall[0],
        average_precision=figures[0],
        best_f1=figures[1],
        best_score=float(thresholds[best]),
        precise_recall=figures[2],
        precise_score=precise_score,
        chance_score=_chance_score(thresholds, recall[0], (once @ wrong)[0], queries.shape, precise_score),
        photos=len(gallery),
    )


def _chance_score(
    thresholds: NDArray[np.float64],
    recall: NDArray[np.float64],
    wrong: NDArray[np.float64],
    shape: tuple[int, ...],
    precise_score: float | None,
) -> float | None:
    """The threshold with the largest Youden's index: `wrong` (T,) counts pairs, `shape` is (K, N, D)."""
    kinds, count, _ = shape
    index = recall - wrong / (kinds * count * (count - 1))
    best = int(index.argmax())
    if index[best] <= 0:
        return None
    score = float(thresholds[best])
    return score if precise_score is None else min(score, precise_score)


def _counts(
    originals: NDArray[np.float32], views: list[NDArray[np.float32]]
) -> tuple[NDArray[np.float64], _Counts, _Counts]:
    """Thresholds (T,), falling, and for each photo its right and its wrong pairs from each on, (N, T)."""
    own = np.stack([np.einsum("nd,nd->n", view, originals) for view in views]).round(_DECIMALS)
    rising = np.unique(own)
    if len(rising) > THRESHOLDS:
        rising = rising[np.linspace(0, len(rising) - 1, THRESHOLDS).round().astype(int)]
    right = np.sum([_count_by_threshold(scores[:, None], rising) for scores in own], axis=0)
    wrong = np.zeros((len(originals), len(rising)))
    for view in views:
        for start in range(0, len(view), _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, len(view)))
            scores = (view[rows] @ originals.T).round(_DECIMALS)
            scores[np.arange(len(rows)), rows] = -np.inf
            wrong[rows] += _count_by_threshold(scores, rising)
    falling = rising[::-1].astype(np.float64)
    return falling, np.cumsum(right[:, ::-1], axis=1), np.cumsum(wrong[:, ::-1], axis=1)


def _count_by_threshold(scores: NDArray[np.float32], rising: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, M) scores to (n, T): how many lie from each threshold to below the next."""
    rows, columns = np.nonzero(scores >= rising[0])
    places = np.searchsorted(rising, scores[rows, columns], side="right") - 1
    counts = np.bincount(rows * len(rising) + places, minlength=len(scores) * len(rising))
    return counts.reshape(len(scores), len(rising)).astype(np.float64)


def _curve(right: _Counts, wrong: _Counts) -> tuple[_Counts, _Counts]:
    """(B, T) right and wrong pairs from each threshold on, to precision and recall, (B, T) each."""
    return right / np.maximum(right + wrong, 1), right / right[:, -1:]


def _f1(precision: _Counts, recall: _Counts) -> _Counts:
    result: _Counts = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return result


def _read_off(precision: _Counts, recall: _Counts) -> NDArray[np.float64]:
    """(B, T) curves to (3, B): average precision, best F1, recall at 99 % precision."""
    steps = np.diff(recall, axis=1, prepend=0)
    precise = np.where(precision >= PRECISE, recall, 0)
    return np.stack(
        [(steps * precision).sum(axis=1), _f1(precision, recall).max(axis=1), precise.max(axis=1)]
    )


def _samples(right: _Counts, wrong: _Counts, seed: int) -> Iterator[NDArray[np.float64]]:
    """What is read off after drawing the photos anew: (3, _SAMPLES_AT_A_TIME) at a time."""
    draws, count = np.random.default_rng(seed), len(right)
    for _ in range(SAMPLES // _SAMPLES_AT_A_TIME):
        times = draws.multinomial(count, np.full(count, 1 / count), size=_SAMPLES_AT_A_TIME).astype(
            np.float64
        )
        yield _read_off(*_curve(times @ right, times @ wrong))
