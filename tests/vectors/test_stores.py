"""Every vector store keeps the same contract: its answers are those of comparing with every vector."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from vitmae_search.errors import VectorCacheDamaged, VectorIndexError
from vitmae_search.records import AttributeFilter, VectorAttributes
from vitmae_search.vectors import ExactIndex, FilteringIndex, VectorStore, open_store

DIMENSION = 16
DATABASES = ("pgvector", "milvus")
FILTERING = pytest.mark.parametrize("store", DATABASES, indirect=True)


@pytest.fixture(params=("files", *DATABASES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], VectorStore]]:
    """Opens the store as a new process would: nothing is in memory."""
    address = None if request.param == "files" else request.getfixturevalue(f"{request.param}_address")
    opened: list[VectorStore] = []

    def open_again() -> VectorStore:
        opened.append(open_store(address, tmp_path / "vectors"))
        return opened[-1]

    yield open_again
    for one in opened:
        one.close()


@pytest.fixture
def filled(new_source, unit):
    source = new_source(DIMENSION)
    for batch in range(3):
        source.add(unit(40, DIMENSION, seed=batch))
    source.remove([2, 45])
    return source


def exact(source, allowed=None) -> ExactIndex:
    ids = np.array([i for i in sorted(source.rows) if allowed is None or i in allowed], np.int64)
    vectors = np.array([source.rows[i][1] for i in ids.tolist()], np.float32)
    return ExactIndex.from_arrays(ids, vectors.reshape(-1, source.dimension))


def assert_equals_brute_force(index, source, queries) -> None:
    for found, expected in zip(index.search(queries, 10), exact(source).search(queries, 10), strict=True):
        assert found.ids.tolist() == expected.ids.tolist()
        assert found.scores.tolist() == expected.scores.tolist()


def test_answers_equal_those_of_comparing_with_every_vector(store, filled, unit):
    queries = np.concatenate([unit(5, DIMENSION, seed=9), unit(3, DIMENSION, seed=0)])
    assert_equals_brute_force(store().open(filled), filled, queries)


def test_lists_of_ids_are_kept_to(store, filled, unit):
    index, queries = store().open(filled), unit(2, DIMENSION, seed=9)
    some = np.array([5, 7, 45, 60, 61, 100, 9999], np.int64)
    for found in index.search(queries, 10, allowed=some):
        assert sorted(found.ids.tolist()) == [5, 7, 60, 61, 100]
    best = index.search(queries, 3)[0].ids
    assert not set(best.tolist()) & set(index.search(queries, 20, excluded=best)[0].ids.tolist())
    assert len(index.search(queries, 10, allowed=some[:0])[0]) == 0


def test_it_follows_what_is_added_and_removed(store, filled, unit):
    queries = unit(4, DIMENSION, seed=9)
    assert store().save(filled)
    filled.add(unit(30, DIMENSION, seed=5))
    filled.remove([1, 3, 50])
    one = store()
    assert_equals_brute_force(one.open(filled), filled, queries)
    filled.add(queries)
    found = one.open(filled).search(queries, 1)
    assert [matches.ids.tolist() for matches in found] == [[151], [152], [153], [154]]


def test_only_what_came_later_is_read(store, filled, unit):
    assert store().save(filled)
    filled.add(unit(2, DIMENSION, seed=5))
    filled.reads.clear()
    assert store().save(filled)
    assert filled.reads == [4]


def test_a_library_put_back_from_a_backup_is_followed_anew(store, filled, unit):
    queries = unit(4, DIMENSION, seed=9)
    backup = copy.deepcopy(filled)
    filled.add(unit(20, DIMENSION, seed=5))
    assert store().save(filled)
    filled.restore(backup)
    filled.add(unit(20, DIMENSION, seed=6))  # the same ids and revisions, other vectors
    assert_equals_brute_force(store().open(filled), filled, queries)
    assert store().verify(filled)


def test_two_libraries_with_the_same_model(store, filled, new_source, unit, tmp_path):
    other = new_source(DIMENSION, key="another")
    other.add(unit(10, DIMENSION, seed=8))
    one = store()
    assert one.save(filled)
    assert one.save(other)
    queries = unit(2, DIMENSION, seed=9)
    assert_equals_brute_force(one.open(other), other, queries)
    one.discard(other)
    assert_equals_brute_force(one.open(filled), filled, queries)


def test_an_error_in_the_middle_leaves_what_was_there(store, filled, unit, monkeypatch):
    queries = unit(4, DIMENSION, seed=9)
    assert store().save(filled)
    filled.add(unit(30, DIMENSION, seed=5))
    read = filled.added_since

    def breaks(revision):
        yield next(read(revision))
        raise RuntimeError("the process ends here")

    with monkeypatch.context() as broken:
        broken.setattr(filled, "added_since", breaks)
        with pytest.raises(RuntimeError):
            store().save(filled)
    assert_equals_brute_force(store().open(filled), filled, queries)
    assert store().verify(filled)


def test_a_space_that_was_discarded_is_stored_again(store, filled, unit):
    one = store()
    assert one.save(filled)
    one.discard(filled)
    one.discard(filled)
    assert not store().verify(filled)
    assert_equals_brute_force(store().open(filled), filled, unit(2, DIMENSION, seed=9))
    assert store().verify(filled)


def test_vectors_that_the_catalogue_lacks_are_found_by_a_check(store, filled):
    assert store().save(filled)
    del filled.rows[7]  # without a tombstone
    with pytest.raises(VectorCacheDamaged):
        store().verify(filled)


def test_an_empty_space_has_no_hits(store, new_source, unit):
    source = new_source(DIMENSION)
    one = store()
    assert [len(found) for found in one.open(source).search(unit(2, DIMENSION), 5)] == [0, 0]
    assert one.save(source)
    one.speed_up(source)
    assert one.describe(source).vectors == 0


def test_queries_of_another_dimension_are_refused(store, filled, unit):
    with pytest.raises(VectorIndexError, match="dimension"):
        store().open(filled).search(unit(1, DIMENSION + 1), 3)


def test_it_says_what_it_holds(store, filled):
    one = store()
    assert one.save(filled)
    one.speed_up(filled)
    assert one.describe(filled).vectors == 118


# Filters by attributes


def attributes(number: int) -> VectorAttributes:
    words = tuple(sorted({number % 2, 10 + number % 10, -100 - number % 100}))
    return VectorAttributes(words, (float(number), float(number), 1.0, 2.0, 1e15, 1e15))


FILTERS = {
    "half": (AttributeFilter(any_of=((1,),)), lambda i: i % 2 == 1),
    "two in ten": (AttributeFilter(any_of=((13, 14),)), lambda i: i % 10 in (3, 4)),
    "both": (AttributeFilter(any_of=((1,), (13, 14))), lambda i: i % 10 == 3),
    "one in a hundred": (AttributeFilter(any_of=((-107,),)), lambda i: i % 100 == 7),
    "a range": (
        AttributeFilter(at_least=(("last_moment", 20.0),), at_most=(("first_moment", 29.0),)),
        lambda i: 20 <= i <= 29,
    ),
    "a place": (
        AttributeFilter(at_least=(("latitude", 1.0),), at_most=(("latitude", 9.0),)),
        lambda i: False,
    ),
    "no word": (AttributeFilter(any_of=((),)), lambda i: False),
}


@FILTERING
@pytest.mark.parametrize("name", FILTERS)
def test_filters_by_attributes(store, filled, unit, name):
    where, passes = FILTERS[name]
    filled.give({i: attributes(i) for i in filled.rows})
    index, queries = store().open(filled), unit(3, DIMENSION, seed=9)
    assert isinstance(index, FilteringIndex)
    found = index.search_where(queries, 10, where, np.sort)
    expected = exact(filled, {i for i in filled.rows if passes(i)}).search(queries, 10)
    assert [matches.ids.tolist() for matches in found] == [matches.ids.tolist() for matches in expected]


@FILTERING
def test_what_a_filter_lets_through_is_asked_of_the_catalogue(store, filled, unit):
    filled.give({i: attributes(i) for i in filled.rows})
    index = store().open(filled)
    assert isinstance(index, FilteringIndex)
    odd = AttributeFilter(any_of=((1,),))
    found = index.search_where(unit(1, DIMENSION, seed=9), 10, odd, lambda ids: np.sort(ids[ids > 110]))
    assert sorted(found[0].ids.tolist()) == [111, 113, 115, 117, 119]


def test_attributes_are_followed_like_vectors(store, filled, unit):
    one = store()
    index, queries = one.open(filled), unit(1, DIMENSION, seed=9)
    filled.give({5: VectorAttributes((77,)), 90: VectorAttributes((77,))})
    filled.reads.clear()
    assert one.save(filled)
    assert filled.reads in ([], [4]), "no vector is read but those whose attributes changed"
    if isinstance(index, FilteringIndex):
        moved = AttributeFilter(any_of=((77,),))
        found = index.search_where(queries, 5, moved, np.sort)[0]
        assert sorted(found.ids.tolist()) == [5, 90]
    filled.give({90: VectorAttributes((78,))})
    filled.remove([5])
    assert_equals_brute_force(one.open(filled), filled, queries)
    if isinstance(index, FilteringIndex):
        assert len(index.search_where(queries, 5, moved, np.sort)[0]) == 0
    with closing(store()) as again:
        assert again.verify(filled)


@FILTERING
def test_attributes_of_all_are_not_read_for_those_of_a_few(store, filled, monkeypatch):
    one = store()
    assert one.save(filled)
    one.speed_up(filled)
    asked: list[int] = []
    read = filled.attributes
    monkeypatch.setattr(filled, "attributes", lambda ids: asked.extend(ids.tolist()) or read(ids))
    filled.give({5: VectorAttributes((77,))})
    assert one.save(filled)
    one.speed_up(filled)
    assert asked == [5]


@FILTERING
def test_attributes_that_differ_are_found_by_a_check(store, filled):
    assert store().save(filled)
    filled.given[7] = VectorAttributes((1,))  # nobody was told
    with pytest.raises(VectorCacheDamaged, match="attributes"):
        store().verify(filled)


@FILTERING
def test_a_first_filling_that_broke_off_goes_on(store, filled, unit, monkeypatch):
    filled.add(unit(200, DIMENSION, seed=4))
    read, attributes = filled.added_since, filled.attributes

    def breaks(revision):
        for number, chunk in enumerate(read(revision)):
            if number == 40:
                raise RuntimeError("the process ends here")
            yield chunk

    with monkeypatch.context() as broken:
        broken.setattr(filled, "added_since", breaks)
        with pytest.raises(RuntimeError):
            store().save(filled)
    # Meanwhile two that are stored already change, and one is removed.
    filled.give({5: VectorAttributes((77,)), 6: VectorAttributes((77,))})
    filled.remove([6])
    asked: list[int] = []
    monkeypatch.setattr(filled, "attributes", lambda ids: asked.extend(ids.tolist()) or attributes(ids))
    assert store().save(filled)
    assert 5 in asked
    assert len(asked) < 200, "the first ones are not stored again"
    queries = unit(4, DIMENSION, seed=9)
    assert_equals_brute_force(store().open(filled), filled, queries)
    index = store().open(filled)
    found = index.search_where(queries[:1], 5, AttributeFilter(any_of=((77,),)), np.sort)[0]
    assert found.ids.tolist() == [5]
    assert store().verify(filled)
