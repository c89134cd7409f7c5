"""The library to measure on: photos that all differ, the same ones in any run, and made once."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

from benchmarks.large_library import make_library, make_photos, photo_path
from vitmae_search.library import Library


def test_photos_differ_and_any_run_makes_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert make_photos(tmp_path / name, 5) == 5
    files = [[photo_path(tmp_path / name, n).read_bytes() for n in range(5)] for name in ("one", "two")]
    assert files[0] == files[1]
    assert len(set(files[0])) == 5


def test_what_is_there_stays_and_a_deadline_leaves_the_rest(tmp_path: Path) -> None:
    make_photos(tmp_path, 2)
    before = photo_path(tmp_path, 1).stat()
    assert make_photos(tmp_path, 4, deadline=time.monotonic()) == 2
    assert make_photos(tmp_path, 4) == 4
    assert photo_path(tmp_path, 1).stat() == before


def test_the_library_has_all_of_them_with_their_dates(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 3)
    assert not make_library(tmp_path, "color_layout", deadline=time.monotonic() - 1)
    assert make_library(tmp_path, "color_layout")
    with Library.open(tmp_path / "library") as library:
        taken = [photo.metadata.taken_at for photo in library.photos()]
        assert library.status().photos == 3
    assert taken[-1] == datetime(2010, 1, 1, 12)
    assert len(set(taken)) == 3
