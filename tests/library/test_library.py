"""An open library notices changes of its files."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from vitmae_search.errors import LibraryEmpty
from vitmae_search.library import Library
from vitmae_search.photos import digest


def test_a_library_that_is_made_anew_is_read_anew(library: Library, photos: Path, tmp_path: Path) -> None:
    """An open library (the app's) must not go on with the deleted file."""
    assert library.search(photos / "odd" / "1.jpg").hits
    shutil.rmtree(library.folder)
    assert library.status().photos == 0
    with pytest.raises(LibraryEmpty):
        library.search(photos / "odd" / "1.jpg")
    with Library.open(library.folder, embedder="color_layout") as other:
        other.index(photos / "odd")
    shutil.rmtree(library.folder)
    with Library.open(library.folder, embedder="color_layout") as other:
        other.index(photos / "even")
    assert {Path(photo.path).parent.name for photo in library.photos()} == {"even"}
    for photo in library.photos():
        result = library.search(photo.path)
        assert result.hits[0].photo.path == photo.path
        assert result.hits[0].score == pytest.approx(1, abs=1e-5)


def test_a_backup_that_is_put_back_is_read(library: Library, photos: Path, write_photo) -> None:  # type: ignore[no-untyped-def]
    """The same space at the same revision, and yet other vectors under the same ids."""
    file = library.folder / "catalogue.sqlite3"
    backup = file.with_name("backup")
    shutil.copyfile(file, backup)
    first = write_photo(photos / "first.jpg", 100)
    library.index(photos)
    assert library.search(first).known
    first.unlink()
    backup.replace(file)
    second = write_photo(photos / "second.jpg", 200)
    with Library.open(library.folder) as other:
        assert other.index(photos).added == 1
    result = library.search(second)
    assert result.hits[0].photo.path == str(second)
    assert result.hits[0].score == pytest.approx(1, abs=1e-5)


def test_a_backup_that_is_indexed_on_finds_the_photos_that_it_indexed(
    tmp_path: Path, photos: Path, write_photo: Callable[[Path, int], Path]
) -> None:
    """At the revision of the lost history, with other photos under its ids."""
    folder, (lost, kept) = tmp_path / "library", (tmp_path / "lost", tmp_path / "kept")
    for seed in range(20, 32):
        write_photo(lost / f"{seed}.jpg", seed)
        write_photo(kept / f"{seed + 100}.jpg", seed + 100)
    with Library.open(folder, embedder="color_layout") as library:
        library.index(photos)
        shutil.copyfile(folder / "catalogue.sqlite3", tmp_path / "backup")
        library.index(lost)
        before = library.spaces()[0].revision
    (tmp_path / "backup").replace(folder / "catalogue.sqlite3")
    with Library.open(folder) as library:
        library.index(kept)
        assert library.spaces()[0].revision == before
        for photo in sorted(kept.iterdir()):
            assert library.search(photo, k=1).hits[0].photo.path == str(photo)
        assert library.check().problems == ()


def test_a_thumbnail_of_a_changed_photo_is_not_kept_as_the_old_ones(
    library: Library, photos: Path, write_photo
) -> None:  # type: ignore[no-untyped-def]
    photo = next(photo for photo in library.photos() if photo.path.endswith("/3.jpg"))
    library.thumbnails.delete(photo.digest)
    write_photo(photos / "odd" / "3.jpg", 300)
    shown = library.thumbnail(photo.photo_id)
    assert library.thumbnails.get(photo.digest) is None
    assert shown == library.thumbnails.get(digest((photos / "odd" / "3.jpg").read_bytes()))


def test_thumbnails_are_shown_where_they_cannot_be_kept(library: Library) -> None:
    photo = library.photos()[0]
    shutil.rmtree(library.thumbnails.folder)
    library.thumbnails.folder.write_text("no folder, so nothing can be written into it", "utf-8")
    shown = library.thumbnail(photo.photo_id)
    assert shown is not None
    with Image.open(io.BytesIO(shown)) as image:
        assert image.format == "JPEG"
