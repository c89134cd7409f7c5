from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vitmae_search.evaluation import NeighbourScores, neighbours, score_neighbours, unit_rows, vote


def random_rows(count: int, dimension: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(5, 60), st.integers(1, 4), st.integers(0, 5))
def test_neighbours_are_the_brute_force_order_without_oneself(count: int, k: int, seed: int) -> None:
    rows = random_rows(count, seed=seed)
    ids, scores = neighbours(rows, k)
    cosines = unit_rows(rows) @ unit_rows(rows).T
    np.fill_diagonal(cosines, -2)
    np.testing.assert_array_equal(ids, np.argsort(-cosines, axis=1)[:, :k])
    np.testing.assert_allclose(scores, np.sort(cosines, axis=1)[:, ::-1][:, :k], atol=1e-5)


def test_more_rows_than_a_chunk() -> None:
    rows = random_rows(2500, 4)
    ids, _ = neighbours(rows, 3)
    assert not (ids == np.arange(2500)[:, None]).any()
    cosines = unit_rows(rows[2400:2401]) @ unit_rows(rows).T
    cosines[0, 2400] = -2
    assert ids[2400, 0] == cosines.argmax()


def test_many_copies_do_not_break_the_alignment_of_rows() -> None:
    rows = np.repeat(random_rows(2), [30, 1], axis=0)
    ids, scores = neighbours(rows, 5)
    assert ids.shape == (31, 5)
    assert not (ids == np.arange(31)[:, None]).any()
    np.testing.assert_allclose(scores[:30], 1, atol=1e-5)


def test_a_row_of_zeros_has_cosine_zero_to_all() -> None:
    rows = np.vstack([random_rows(4), np.zeros((1, 8), np.float32)])
    _, scores = neighbours(rows, 2)
    np.testing.assert_array_equal(scores[4], 0)


@pytest.mark.parametrize("k", [0, 5, 6])
def test_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="neighbours"):
        neighbours(random_rows(5), k)


def cosines_of(vectors: np.ndarray) -> np.ndarray:
    unit = unit_rows(vectors).astype(np.float64)
    return np.round(unit @ unit.T, 12)


def brute_force(vectors: np.ndarray, labels: np.ndarray, k: int, depth: int) -> np.ndarray:
    """P@1, P@k and AP@depth of each photo that has another of its class, by the definitions, (Q, 3)."""
    scores = cosines_of(vectors)
    rows = []
    for i in range(len(labels)):
        order = sorted((j for j in range(len(labels)) if j != i), key=lambda j: (-scores[i, j], j))
        right = [labels[j] == labels[i] for j in order]
        if not any(right):
            continue
        hits, summed = 0, 0.0
        for rank, good in enumerate(right[:depth], start=1):
            hits += good
            summed += good * hits / rank
        considered = min(k, len(order))
        average = summed / min(sum(right), depth, len(order))
        rows.append((float(right[0]), sum(right[:k]) / considered, average))
    return np.array(rows)


def decided(vectors: np.ndarray) -> bool:
    """Whether no order hangs on the rounding of float32: cosines are the same, or clearly not."""
    gaps = np.diff(np.sort(cosines_of(vectors), axis=1), axis=1)
    return not ((gaps > 0) & (gaps < 1e-6)).any()


def as_columns(scores: NeighbourScores) -> np.ndarray:
    return np.stack([scores.first, scores.precision, scores.average_precision], axis=1)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(1, 12), st.integers(1, 30), st.integers(0, 5), st.booleans())
def test_scores_are_those_of_the_definitions(count: int, k: int, depth: int, seed: int, ties: bool) -> None:
    draws = np.random.default_rng(seed)
    labels = np.concatenate([[0, 0], draws.integers(0, 6, count)])  # small classes, some with one member
    rows = random_rows(count + 2, 6, seed)
    if ties:
        rows = np.eye(6, dtype=np.float32)[draws.integers(0, 6, count + 2)]  # cosines are 0 or 1
    assume(decided(rows))
    scores = score_neighbours(rows, labels, k=k, depth=depth)
    np.testing.assert_allclose(as_columns(scores), brute_force(rows, labels, k, depth), atol=1e-6)


def test_average_precision_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score

    rows, labels = random_rows(80, 8), np.random.default_rng(3).integers(0, 5, 80)
    rows += 2 * np.eye(8, dtype=np.float32)[labels]
    cosines = unit_rows(rows) @ unit_rows(rows).T
    others = ~np.eye(80, dtype=bool)
    expected = [
        average_precision_score(labels[others[i]] == labels[i], cosines[i][others[i]]) for i in range(80)
    ]
    np.testing.assert_allclose(score_neighbours(rows, labels).average_precision, expected, atol=1e-6)


def test_the_vote_is_that_of_a_classifier_with_these_weights() -> None:
    """With the farthest of 20 neighbours at its edge, scikit-learn's own classifier agrees."""
    from sklearn.neighbors import KNeighborsClassifier

    rows, labels = random_rows(120, 8), np.random.default_rng(3).integers(0, 4, 120)
    rows += np.eye(8, dtype=np.float32)[labels]
    unit = unit_rows(rows).astype(np.float64)

    def weights(distances: np.ndarray) -> np.ndarray:
        cosines = 1 - distances**2 / 2
        return cosines - cosines[:, -1:]

    expected = []
    for i in range(120):
        others = np.arange(120) != i
        model = KNeighborsClassifier(20, weights=weights, algorithm="brute")
        expected.append(model.fit(unit[others], labels[others]).predict(unit[i : i + 1])[0] == labels[i])
    assert score_neighbours(rows, labels).correct.tolist() == expected


def test_separate_clusters_score_one_and_chance_scores_chance() -> None:
    labels = np.repeat(np.arange(10), 40)
    rows = np.eye(10, dtype=np.float32)[labels] + 0.01 * random_rows(400, 10)
    clear = score_neighbours(rows, labels)
    assert as_columns(clear).min() == clear.correct.min() == 1
    noise = score_neighbours(random_rows(400, 10), labels)
    assert noise.first.mean() == pytest.approx(39 / 399, abs=0.05)
    assert noise.precision.mean() == pytest.approx(39 / 399, abs=0.02)
    assert noise.average_precision.mean() < 0.1
    assert noise.correct.mean() < 0.25


@pytest.mark.parametrize("blind", [np.ones((60, 4)), np.zeros((60, 4))])
def test_one_vector_for_every_photo_scores_chance(blind: np.ndarray) -> None:
    labels = np.repeat(np.arange(6), 10)
    scores = score_neighbours(blind.astype(np.float32), labels)
    assert scores.first.mean() == pytest.approx(1 / 6, abs=0.02)
    assert scores.precision.mean() == pytest.approx(1 / 6, abs=0.02)
    assert scores.correct.mean() <= 1 / 6


def test_a_photo_alone_in_its_class_can_be_found_and_is_no_query() -> None:
    rows = np.array([[1, 0], [1, 0.1], [1, 0.04]], np.float32)
    scores = score_neighbours(rows, np.array([0, 0, 1]))
    np.testing.assert_array_equal(scores.first, [0, 0])
    np.testing.assert_allclose(scores.precision, [0.5, 0.5])
    np.testing.assert_allclose(scores.average_precision, [0.5, 0.5])


def test_labels_that_are_all_different_are_refused() -> None:
    with pytest.raises(ValueError, match="no two photos"):
        score_neighbours(random_rows(5), np.arange(5))


def test_equal_cosines_come_in_the_order_of_the_rows() -> None:
    ids, _ = neighbours(np.ones((50, 4), np.float32), 7)
    np.testing.assert_array_equal(ids[20], range(7))
    np.testing.assert_array_equal(ids[3], [0, 1, 2, 4, 5, 6, 7])


def test_precision_counts_the_first_k_only() -> None:
    angles = np.array([0.0, 1.0, 2.0, 40.0, 41.0, 42.0])
    rows = np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1).astype(np.float32)
    labels = np.array([0, 0, 1, 0, 1, 1])
    scores = score_neighbours(rows, labels, k=2, votes=2)
    np.testing.assert_array_equal(scores.precision, [0.5, 0.5, 0.0, 0.0, 0.5, 0.5])


def test_nearer_voters_weigh_more_and_equal_ones_decide_by_majority() -> None:
    labels = np.array([[7, 7, 3, 3, 3], [1, 2, 2, 1, 2]])
    scores = np.array([[0.9, 0.9, 0.5, 0.5, 0.4], [0.5, 0.5, 0.5, 0.5, 0.5]], np.float32)
    np.testing.assert_array_equal(vote(labels, scores), [7, 2])


def test_the_vote_does_not_depend_on_the_unit_of_the_scores() -> None:
    draws = np.random.default_rng(0)
    labels = draws.integers(0, 5, (200, 20))
    scores = np.sort(draws.random((200, 20)).astype(np.float32), axis=1)[:, ::-1]
    np.testing.assert_array_equal(vote(labels, scores), vote(labels, 0.1 * scores + 0.85))


def test_labels_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="labels"):
        score_neighbours(random_rows(30), np.zeros(29, np.int64))
