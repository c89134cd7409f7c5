"""The examples in the docstrings of `Library` give what they say."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from vitmae_search.library import Library

EXAMPLES = {test.name: test for test in doctest.DocTestFinder().find(Library, "Library") if test.examples}
MENTIONED = ("open", "index", "search", "similar", "reconstruct", "spaces")


def test_what_users_call_first_has_an_example() -> None:
    assert {f"Library.{name}" for name in MENTIONED} <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "working-folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    report: list[str] = []
    result = doctest.DocTestRunner().run(EXAMPLES[name], out=report.append)
    assert result.failed == 0, "".join(report)
    assert list(folder.iterdir()) == [], "nothing is left behind"
