"""Exact search compared with a brute-force one in numpy."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vitmae_search.errors import VectorIndexError
from vitmae_search.vectors import ExactIndex, Matches

DIMENSION = 4
# Few distinct vectors, so that ties are common, boundary ties among them.
PALETTE = np.array(
    [[1, 0, 0, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0.6, 0.8, 0, 0], [0.6, 0, 0.8, 0], [0.5, 0.5, 0.5, 0.5]],
    np.float32,
)


def brute_force(held, query, k, allowed=None, excluded=None):
    """(ids, scores) by comparing with everything, in float64, ordered by score and then id."""
    ids = sorted(held)
    if allowed is not None:
        ids = [i for i in ids if i in set(allowed)]
    if excluded is not None:
        ids = [i for i in ids if i not in set(excluded)]
    scored = [(-np.float32((held[i].astype(np.float64) * query).sum()), i) for i in ids]
    best = sorted(scored)[:k]
    return [i for _, i in best], [-s for s, _ in best]


def assert_equal(matches: Matches, expected) -> None:
    assert matches.ids.tolist() == expected[0]
    assert matches.scores.tolist() == expected[1]
    assert matches.ids.dtype == np.int64
    assert matches.scores.dtype == np.float32


ids_strategy = st.lists(st.integers(0, 40) | st.sampled_from([2**40, 2**62]), unique=True, max_size=12)


class IndexModel(RuleBasedStateMachine):
    """The index and a dict, told the same things."""

    def __init__(self) -> None:
        super().__init__()
        self.index = ExactIndex(DIMENSION)
        self.held: dict[int, np.ndarray] = {}

    @rule(ids=ids_strategy, data=st.data())
    def add(self, ids, data):
        rows = data.draw(st.lists(st.integers(0, 5), min_size=len(ids), max_size=len(ids)))
        vectors = PALETTE[rows].reshape(-1, DIMENSION)
        array = np.array(ids, np.int64)
        if set(ids) & set(self.held):
            with pytest.raises(VectorIndexError, match="never used again"):
                self.index.add(array, vectors)
        else:
            self.index.add(array, vectors)
            self.held |= dict(zip(ids, vectors, strict=True))

    @rule(ids=ids_strategy)
    def remove(self, ids):
        expected = set(ids) & set(self.held)
        assert self.index.remove(np.array(ids, np.int64)) == len(expected)
        for i in expected:
            del self.held[i]

    @rule(
        row=st.integers(0, 5),
        k=st.integers(1, 60),
        allowed=st.none() | ids_strategy,
        excluded=st.none() | ids_strategy,
    )
    def search(self, row, k, allowed, excluded):
        found = self.index.search(
            PALETTE[row : row + 1],
            k,
            allowed=None if allowed is None else np.array(allowed, np.int64),
            excluded=None if excluded is None else np.array(excluded, np.int64),
        )
        assert len(found) == 1
        assert_equal(found[0], brute_force(self.held, PALETTE[row], k, allowed, excluded))

    @rule(seed=st.integers(0, 9))
    def store_in_any_order_and_load(self, seed):
        ids = np.random.default_rng(seed).permutation(self.index.ids)
        self.index = ExactIndex.from_arrays(ids, self.index.vectors(ids))

    @rule()
    def copy(self):
        old, self.index = self.index, self.index.copy()
        old.remove(old.ids)

    @invariant()
    def holds_the_same(self):
        assert len(self.index) == len(self.held)
        assert self.index.ids.tolist() == sorted(self.held)
        ids = np.array(sorted(self.held), np.int64)
        assert self.index.contains(ids).all()
        assert not self.index.contains(np.array([41, 2**50])).any()
        if len(ids):
            assert np.array_equal(self.index.vectors(ids), np.array([self.held[i] for i in ids.tolist()]))


IndexModel.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestIndexModel = IndexModel.TestCase


def test_many_tied_at_the_boundary_come_by_id():
    index = ExactIndex(DIMENSION)
    ids = np.random.default_rng(0).permutation(1000)
    index.add(ids, np.repeat(PALETTE[2:3], 1000, axis=0))
    found = index.search(PALETTE[3:4], 5)[0]
    assert found.ids.tolist() == [0, 1, 2, 3, 4]


@given(seed=st.integers(0, 10_000), k=st.integers(1, 30), batch=st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_a_query_finds_the_same_in_any_batch_as_brute_force_does(seed, k, batch):
    random = np.random.default_rng(seed)
    rows = random.standard_normal((300, 24)).astype(np.float32)
    rows[50:100] = rows[:50]  # equal vectors under other ids
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ids = random.permutation(5000)[:300].astype(np.int64)
    index = ExactIndex(24)
    index.add(ids, rows)
    held = dict(zip(ids.tolist(), rows, strict=True))
    together = index.search(rows[:batch], k)
    for query, matches in zip(rows[:batch], together, strict=True):
        assert_equal(matches, brute_force(held, query, k))
        assert_equal(index.search(query[None], k)[0], (matches.ids.tolist(), matches.scores.tolist()))


def test_an_empty_index_finds_nothing():
    index = ExactIndex(DIMENSION)
    assert [len(m) for m in index.search(PALETTE[:2], 3)] == [0, 0]
    assert index.remove(np.array([1])) == 0
    assert index.vectors(np.empty(0, np.int64)).shape == (0, DIMENSION)


def test_nothing_allowed_finds_nothing(unit):
    index = ExactIndex(DIMENSION)
    index.add(np.arange(100), unit(100, DIMENSION))
    assert len(index.search(PALETTE[:1], 5, allowed=np.empty(0, np.int64))[0]) == 0
    assert len(index.search(PALETTE[:1], 5, allowed=np.array([1]), excluded=np.array([1]))[0]) == 0


@pytest.mark.parametrize(
    ("ids", "vectors", "says"),
    [
        ([1], PALETTE[:1], "never used again"),
        ([5, 5], PALETTE[:2], "never used again"),
        ([-1], PALETTE[:1], "negative"),
        ([0.5], PALETTE[:1], "whole numbers"),
        ([[2]], PALETTE[:1], "one dimension"),
        ([2, 3], PALETTE[:1], "came with"),
        ([2], PALETTE[:1, :3], "do not fit"),
        ([2], PALETTE[0], "do not fit"),
        ([2], PALETTE[:1].astype(np.float64), "float32"),
        ([2], np.array([[np.nan, 1, 0, 0]], np.float32), "NaN"),
        ([2], np.array([[np.inf, 1, 0, 0]], np.float32), "NaN"),
        ([2], PALETTE[:1] * np.float32(1.01), "norm 1"),
        ([2, 3], PALETTE[:2] * np.array([[1], [0]], np.float32), "norm 1"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(ids, vectors, says):
    index = ExactIndex(DIMENSION)
    index.add(np.array([1]), PALETTE[1:2])
    with pytest.raises(VectorIndexError, match=says):
        index.add(np.array(ids), vectors)
    assert index.ids.tolist() == [1]
    assert len(index.search(PALETTE[:1], 9)[0]) == 1


@pytest.mark.parametrize("query", [PALETTE[0], PALETTE[:1, :2], PALETTE.astype(np.float64), [[1, 0, 0, 0]]])
def test_a_query_that_does_not_fit_is_refused(query):
    index = ExactIndex(DIMENSION)
    index.add(np.array([1]), PALETTE[1:2])
    with pytest.raises(VectorIndexError):
        index.search(query, 1)


def test_k_and_dimension_are_at_least_one():
    with pytest.raises(VectorIndexError, match="k must be"):
        ExactIndex(DIMENSION).search(PALETTE[:1], 0)
    with pytest.raises(VectorIndexError, match="dimension"):
        ExactIndex(0)


def test_vectors_of_an_id_that_is_not_there():
    with pytest.raises(VectorIndexError, match="not in"):
        ExactIndex(DIMENSION).vectors(np.array([3]))


def test_searching_from_many_threads_gives_what_one_gives(unit):
    index = ExactIndex(16)
    rows = unit(2000, 16)
    index.add(np.arange(2000), rows)
    excluded = np.arange(0, 2000, 3)
    expected = [m.ids.tolist() for m in index.search(rows[:50], 10, excluded=excluded)]
    wrong: list[int] = []

    def search_all() -> None:
        for row in range(50):
            found = index.search(rows[row : row + 1], 10, excluded=excluded)[0].ids.tolist()
            if found != expected[row]:
                wrong.append(row)

    threads = [threading.Thread(target=search_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
