from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitmae_search.evaluation import neighbours, score_neighbours, unit_rows, vote


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


def test_many_copies_crowd_nobody_out_of_alignment() -> None:
    rows = np.repeat(random_rows(2), [30, 1], axis=0)
    ids, scores = neighbours(rows, 5)
    assert ids.shape == (31, 5)
    assert not (ids == np.arange(31)[:, None]).any()
    np.testing.assert_allclose(scores[:30], 1, atol=1e-5)


def test_a_row_of_zeros_is_similar_to_nothing() -> None:
    rows = np.vstack([random_rows(4), np.zeros((1, 8), np.float32)])
    _, scores = neighbours(rows, 2)
    np.testing.assert_array_equal(scores[4], 0)


@pytest.mark.parametrize("k", [0, 5, 6])
def test_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="neighbours"):
        neighbours(random_rows(5), k)


def test_separate_clusters_score_one_and_chance_scores_chance() -> None:
    labels = np.repeat(np.arange(10), 40)
    rows = np.eye(10, dtype=np.float32)[labels] + 0.01 * random_rows(400, 10)
    clear = score_neighbours(rows, labels)
    assert clear.precision_at_k == 1
    assert clear.accuracy == 1
    noise = score_neighbours(random_rows(400, 10), labels)
    assert noise.precision_at_k == pytest.approx(39 / 399, abs=0.02)
    assert noise.accuracy < 0.25


def test_precision_counts_the_first_k_only() -> None:
    angles = np.array([0.0, 1.0, 2.0, 40.0, 41.0, 42.0])
    rows = np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1).astype(np.float32)
    labels = np.array([0, 0, 1, 0, 1, 1])
    scores = score_neighbours(rows, labels, k=2, votes=2)
    np.testing.assert_array_equal(scores.precision, [0.5, 0.5, 0.0, 0.0, 0.5, 0.5])


def test_near_votes_weigh_more_and_all_alike_is_a_majority() -> None:
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
