"""`relocate`: a folder under another path keeps all that is known of it, and nothing is read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vitmae_search.cli.main import run
from vitmae_search.errors import LibraryError
from vitmae_search.library import Library
from vitmae_search.records import Marks, SavedSearch, SearchFilter


def test_all_that_is_known_moves_along(library: Library, photos: Path, tmp_path: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"no picture")
    odd = os.fsdecode(os.fsencode(photos) + b"/caf\xe9.jpg")
    (photos / "odd" / "1.jpg").rename(odd)
    library.index(photos)
    before = {photo.photo_id: photo for photo in library.photos()}
    marked = next(iter(before))
    library.mark([marked], rating=5)
    library.save_search(SavedSearch("odd", where=SearchFilter(under=str(photos / "odd"))))
    now = tmp_path / "drive"
    photos.rename(now)
    assert library.relocate(photos, now) == len(before) == 12
    for photo in library.photos():
        assert os.path.isfile(photo.path)
        assert photo.path == before[photo.photo_id].path.replace(str(photos), str(now))
    assert library.marks(marked) == Marks(rating=5)
    assert library.saved_search("odd").where.under == str(now / "odd")
    assert [failure.path for failure in library.failures()] == [str(now / "bad.jpg")]
    assert [root.path for root in library.status().roots] == [str(now)]
    assert library.check().problems == ()
    report = library.index(now)
    assert (report.unchanged, report.added, report.moved, report.missing) == (12, 0, 0, 0)
    assert library.search(library.photos()[0].path, k=1).hits[0].score == pytest.approx(1, abs=1e-5)


def test_a_folder_inside_an_indexed_one(library: Library, photos: Path, tmp_path: Path) -> None:
    (photos / "odd").rename(tmp_path / "elsewhere")
    assert library.relocate(photos / "odd", tmp_path / "elsewhere") == 6
    assert library.count_photos(SearchFilter(under=str(tmp_path / "elsewhere"))) == 6
    assert [root.path for root in library.status().roots] == [str(photos)]
    assert library.index(photos).missing == 0


def test_what_cannot_be_is_said_and_changes_nothing(library: Library, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    before = library.photos()
    for old, new, words in (
        (photos, tmp_path / "none", "is not a folder"),
        (tmp_path / "unknown", tmp_path / "new", "nothing in .* is in the library"),
        (photos, photos / "odd", "inside it"),
        (photos / "odd", photos / "odd", "inside it"),
        (photos / "odd", photos / "even", "knows something in .* already"),
    ):
        with pytest.raises(LibraryError, match=words):
            library.relocate(old, new)
    assert library.photos() == before


def test_the_command(
    library: Library, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photos.rename(tmp_path / "drive")
    words = ["relocate", str(photos), str(tmp_path / "drive"), "--library", str(library.folder), "--json"]
    assert run(words) == 0
    assert json.loads(capfd.readouterr().out) == {"photos": 12}
    assert run(words[:-1]) == 1
    assert "nothing in" in capfd.readouterr().err
