"""What users of `Library` call first has an example; `tests/docs/test_examples.py` runs them all."""

from __future__ import annotations

import doctest

from vitmae_search.library import Library

MENTIONED = ("open", "index", "search", "similar", "reconstruct", "spaces")


def test_what_users_call_first_has_an_example() -> None:
    found = doctest.DocTestFinder().find(Library, "Library")
    assert {f"Library.{name}" for name in MENTIONED} <= {test.name for test in found if test.examples}
