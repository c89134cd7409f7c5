"""`prune` and `forget` remove rows, vectors and thumbnails, and touch no file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vitmae_search.errors import LibraryEmpty, LibraryError
from vitmae_search.library import Library
from vitmae_search.records import RemovalReport


def stored(library: Library) -> tuple[int, int, int]:
    """Rows, vectors of the current space, and thumbnails."""
    status = library.status()
    (space,) = status.spaces
    return status.photos + status.missing, space.vectors, len(list(library.thumbnails.digests()))


def test_prune_removes_what_is_missing(library: Library, photos: Path) -> None:
    assert library.prune() == RemovalReport(0, 0, 0)
    shutil.copy(photos / "even" / "0.jpg", photos / "copy.jpg")
    library.index(photos)
    for name in ("even/0.jpg", "even/2.jpg", "odd/1.jpg"):
        (photos / name).unlink()
    (library.folder / "thumbnails" / "ab").mkdir(exist_ok=True)
    (library.folder / "thumbnails" / "ab" / f"{'ab' * 32}.jpg").write_bytes(b"left behind by a crash")
    assert library.index(photos).missing == 3
    assert stored(library) == (13, 12, 13)
    assert library.prune() == RemovalReport(3, 2, 3), "one of the photos has a copy"
    assert stored(library) == (10, 10, 10)
    assert library.check().ok
    found = library.search(photos / "even" / "4.jpg", k=20).hits
    assert len(found) == 10


def test_forget_removes_a_folder_and_no_file(library: Library, photos: Path) -> None:
    (photos / "even" / "bad.jpg").write_bytes(b"bad")
    library.index(photos)
    before = sorted(photos.rglob("*"))
    assert library.forget(photos / "even") == RemovalReport(6, 6, 6)
    assert sorted(photos.rglob("*")) == before
    assert stored(library) == (6, 6, 6)
    assert library.failures() == []
    assert [root.path for root in library.status().roots] == [str(photos)], "the root itself stays"
    with pytest.raises(LibraryError, match="even is in the library"):
        library.forget(photos / "even")
    shutil.rmtree(photos)
    assert library.forget(photos).photos == 6
    assert library.status().roots == ()
    assert library.status().photos == 0
    assert library.check().ok


def test_forget_needs_the_whole_name(library: Library, photos: Path) -> None:
    with pytest.raises(LibraryError):
        library.forget(str(photos) + "x")
    with pytest.raises(LibraryError):
        library.forget(str(photos / "od"))


def test_an_empty_library_has_nothing_to_remove(tmp_path: Path) -> None:
    with Library.open(tmp_path / "none") as library:
        with pytest.raises(LibraryEmpty):
            library.prune()
        with pytest.raises(LibraryEmpty):
            library.forget(tmp_path)
