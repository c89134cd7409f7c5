"""A set with a bit for each id is a set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vitmae_search.indexing.id_set import IdSet

IDS = st.integers(1, 2000)


@given(st.lists(IDS), st.lists(IDS))
def test_it_has_what_was_added(added, asked):
    numbers = IdSet()
    for number in added:
        numbers.add(number)
    assert len(numbers) == len(set(added))
    assert all((number in numbers) == (number in added) for number in asked + added)
