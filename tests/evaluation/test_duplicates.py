"""Near-duplicates: the curve and its figures, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from vitmae_search.evaluation import duplicate_scores, unit_rows


def photos(count: int, kinds: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    gallery = draws.standard_normal((count, 12)).astype(np.float32)
    queries = gallery + noise * draws.standard_normal((kinds, count, 12))
    return gallery, queries.astype(np.float32)


def pairs(gallery: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every pair: whether it is right, and its score."""
    scores = np.stack([unit_rows(views) @ unit_rows(gallery).T for views in queries])
    right = np.broadcast_to(np.eye(len(gallery), dtype=bool), scores.shape)
    return right.ravel(), np.round(scores.ravel(), 6)


@pytest.mark.parametrize("noise", [0.1, 0.8, 3.0])
def test_figures_are_those_of_scikit_learn(noise: float) -> None:
    gallery, queries = photos(300, 3, noise)
    found = duplicate_scores(gallery, queries)
    right, scores = pairs(gallery, queries)
    assert found.average_precision.value == pytest.approx(average_precision_score(right, scores), abs=1e-4)
    precision, recall, thresholds = precision_recall_curve(right, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert found.best_f1.value == pytest.approx(f1.max(), abs=1e-4)
    assert found.best_score == pytest.approx(thresholds[f1[:-1].argmax()], abs=1e-5)
    enough = precision[:-1] >= 0.99
    best = recall[:-1][enough].max(initial=0)
    assert found.precise_recall.value == pytest.approx(best, abs=1e-4)
    if best == 0:
        assert found.precise_score is None
    else:
        assert found.precise_score is not None
        at = scores >= found.precise_score - 1e-7
        assert right[at].mean() >= 0.99
        assert right[at].sum() / right.sum() == pytest.approx(best)


def test_ties_are_counted_together() -> None:
    gallery = np.eye(4, dtype=np.float32).repeat(3, axis=0)  # each photo looks like two others
    found = duplicate_scores(gallery, gallery[None])
    assert found.scores.tolist() == [1.0]
    assert found.average_precision.value == found.precision[0] == pytest.approx(1 / 3)
    assert found.best_f1.value == pytest.approx(0.5)
    assert (found.precise_score, found.precise_recall.value) == (None, 0)


def test_more_pairs_than_thresholds_change_little() -> None:
    gallery, queries = photos(800, 4, 1.0)
    found = duplicate_scores(gallery, queries)
    right, scores = pairs(gallery, queries)
    assert len(found.scores) == 1000
    assert found.average_precision.value == pytest.approx(average_precision_score(right, scores), abs=2e-3)


def test_perfect_and_worst_scores() -> None:
    gallery, queries = photos(100, 2, 0.0)
    perfect = duplicate_scores(gallery, queries)
    for measured in (perfect.average_precision, perfect.best_f1, perfect.precise_recall):
        assert (measured.value, measured.low, measured.high) == (1, 1, 1)
    blind = duplicate_scores(np.ones_like(gallery), np.ones_like(queries))
    assert blind.average_precision.value == pytest.approx(0.01)
    noise = duplicate_scores(gallery, photos(100, 2, 0.0, seed=9)[1])
    assert noise.average_precision.value < 0.05
    assert noise.precise_recall.value < 0.05


@pytest.mark.parametrize("noise", [0.3, 0.8, 2.0])
def test_below_the_chance_score_a_hit_is_likelier_another_photo(noise: float) -> None:
    gallery, queries = photos(400, 3, noise)
    found = duplicate_scores(gallery, queries)
    right, scores = pairs(gallery, queries)
    assert found.chance_score is not None
    gains = [
        (scores[right] >= score).mean() - (scores[~right] >= score).mean()
        for score in np.unique(scores[right])
    ]
    at = (scores[right] >= found.chance_score).mean() - (scores[~right] >= found.chance_score).mean()
    assert at == pytest.approx(max(gains), abs=2e-3)
    assert found.precise_score is None or found.chance_score <= found.precise_score


def test_a_calibration_takes_photos_and_scores_that_tell_them_apart() -> None:
    calibration = duplicate_scores(*photos(200, 3, 0.4)).calibration
    assert calibration is not None
    assert calibration.same is not None
    assert calibration.alike is not None
    assert (calibration.photos, calibration.alike <= calibration.same) == (200, True)
    assert duplicate_scores(*photos(99, 3, 0.4)).calibration is None
    blind = duplicate_scores(*(np.ones_like(one) for one in photos(100, 2, 0.0))).calibration
    assert blind is not None
    assert (blind.same, blind.alike) == (None, None)


def test_intervals_hold_the_value_narrow_with_photos_and_repeat() -> None:
    wide = []
    for count in (30, 300):
        gallery, queries = photos(count, 3, 1.2)
        found = duplicate_scores(gallery, queries)
        measured = found.average_precision
        assert measured.low < measured.value < measured.high
        wide.append(measured.high - measured.low)
        assert duplicate_scores(gallery, queries).average_precision == measured
    assert wide[1] < wide[0]


@pytest.mark.parametrize("shape", [(3, 4, 5), (0, 4, 6), (4, 6)])
def test_rows_that_do_not_belong_together_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="queries"):
        duplicate_scores(np.ones((4, 6), np.float32), np.ones(shape, np.float32))
