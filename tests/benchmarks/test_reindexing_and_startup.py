"""The benchmarks of whole processes, on a library of three photos."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import reindexing, startup
from benchmarks.large_library import make_library, make_photos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_photos(tmp_path / "photos", 3)
    make_library(tmp_path, "color_layout")
    return tmp_path


def test_each_run_finds_what_it_should(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    seconds, megabytes = reindexing.measure(folder, 2, 1)
    assert list(seconds) == [
        "a bare walk",
        "all unchanged",
        "all unchanged, and 2 new",
        "the 2 alone, in a new library",
    ]
    assert all(len(column) == 1 for column in seconds.values())
    assert set(megabytes) == set(seconds) - {"a bare walk"}
    assert sorted(folder.rglob("*")) == before, "the library is left as it was"


def test_searches_are_told_beside_torch(folder: Path) -> None:
    table = startup.report(startup.measure(folder, 1, warm_up=0))
    told = {line.split("|")[1].strip(): line.split("|")[3].strip() for line in table.splitlines()[2:]}
    assert [name for name, above in told.items() if above] == [
        "search, a known photo",
        "search, another photo",
    ]


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        startup.run_process((sys.executable, "-c", "raise SystemExit('no such thing')"), {})


def test_without_photos_it_says_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"benchmarks\.large_library"):
        startup.count_photos(tmp_path / "library")
