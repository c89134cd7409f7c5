"""What is connected by high scores, block by block, against comparing all with all."""

from __future__ import annotations

import tracemalloc

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from vitmae_search.search import duplicates
from vitmae_search.search.duplicates import connected, groups_around_best, members


def drawn(seed: int, count: int, near: int, dimension: int = 16) -> np.ndarray:
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, dimension)).astype(np.float32)
    copies = random.integers(0, count, (2, near))
    vectors[copies[0]] = vectors[copies[1]] + random.uniform(0, 0.5, (near, 1)) * random.standard_normal(
        (near, dimension)
    )
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(st.integers(0, 10_000), st.integers(1, 120), st.integers(0, 60), st.integers(1, 40))
@settings(max_examples=80)
def test_blocks_connect_what_all_pairs_do(seed: int, count: int, near: int, block: int) -> None:
    vectors = drawn(seed, count, near)
    scores = [0.8, 0.95, 0.99]
    before, duplicates._BLOCK = duplicates._BLOCK, block
    try:
        found = connected(vectors, scores)
    finally:
        duplicates._BLOCK = before
    similar = vectors @ vectors.T
    for score, labels in zip(scores, found, strict=True):
        if (np.abs(similar - score) < 1e-6).any():
            continue  # rounding decides
        _, expected = connected_components(csr_array(similar >= score), directed=False)
        for mine in members(labels):
            assert len(set(expected[mine].tolist())) == 1
        assert {tuple(rows) for rows in members(labels)} == {
            tuple(np.flatnonzero(expected == one))
            for one in np.unique(expected)
            if (expected == one).sum() > 1
        }


def test_many_equal_vectors_are_one_group() -> None:
    vectors = np.tile(np.float32([1, 0, 0, 0]), (5000, 1))
    (labels,) = connected(vectors, [0.99])
    assert (labels == 0).all()
    assert [len(rows) for rows in members(labels)] == [5000]


def test_memory_grows_with_the_number_of_vectors() -> None:
    """20,000 scores of 20,000 would be 1.5 GiB."""
    vectors = drawn(0, 20_000, 500, dimension=32)
    tracemalloc.start()
    connected(vectors, [0.9, 0.99])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 * 2**20


def test_it_can_be_ended() -> None:
    (labels,) = connected(np.tile(np.float32([1, 0]), (10, 1)), [0.9], cancelled=lambda: True)
    assert labels.tolist() == list(range(10))


@pytest.mark.parametrize("count", [0, 1])
def test_few_have_no_groups(count: int) -> None:
    (labels,) = connected(np.ones((count, 1), np.float32), [0.5])
    assert members(labels) == []
    assert groups_around_best(np.ones((count, 1), np.float32), 0.5, {}) == []


def test_a_chain_falls_into_groups_around_their_best() -> None:
    angles = np.radians([0, 20, 40, 60, 80])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    groups = groups_around_best(vectors, float(np.cos(np.radians(25))), {})
    assert [[row for row, _ in group] for group in groups] == [[0, 1], [2, 3]]
    best = groups_around_best(vectors[[2, 1, 3, 0, 4]], float(np.cos(np.radians(25))), {})
    assert [[row for row, _ in group] for group in best] == [[0, 1, 2]]


def test_those_that_are_apart_are_in_no_group_together() -> None:
    vectors = np.tile(np.float32([1, 0]), (4, 1))
    groups = groups_around_best(vectors, 0.9, {0: {1, 2}, 1: {0}, 2: {0}})
    assert [[row for row, _ in group] for group in groups] == [[0, 3], [1, 2]]


@given(hnp.arrays(np.float32, (30, 3), elements=st.floats(-1, 1, width=32)), st.floats(0.1, 0.99))
def test_every_member_is_near_the_first(vectors: np.ndarray, score: float) -> None:
    vectors = vectors + np.float32([2, 0, 0])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    seen: list[int] = []
    for group in groups_around_best(vectors, score, {}):
        first = group[0][0]
        for row, value in group[1:]:
            assert value >= np.float32(score)
            assert value == pytest.approx(float(vectors[first] @ vectors[row]), abs=1e-5)
        seen += [row for row, _ in group]
    assert len(seen) == len(set(seen))
