"""Labels from folders' names and from CSV files, and what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vitmae_search.errors import LabelsError
from vitmae_search.photos import folder_label, labels_of_csv


@pytest.fixture
def photo_folder(tmp_path: Path, write_photo: Callable[[Path, int], Path]) -> Path:
    folder = tmp_path / "photos"
    for seed, name in enumerate(("first/00.jpg", "first/01.jpg", "second/07.jpg")):
        write_photo(folder / name, seed)
    return folder


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_first_folder_is_the_label() -> None:
    assert folder_label("/photos/cats/2024/a.jpg", "/photos") == "cats"
    assert folder_label("/photos/a.jpg", "/photos") is None


def test_a_csv_labels_the_photos_that_it_lists(photo_folder: Path, tmp_path: Path) -> None:
    table = write(
        tmp_path / "labels.csv",
        "\ufeffwho,label,path\r\nme, old cat ,first/01.jpg\r\n"
        ',"dog, big",second/07.jpg\r\n,dog,first/00.jpg\r\n',
    )
    found = labels_of_csv(table, photo_folder)
    assert [os.path.basename(stamp.path) for stamp in found.files] == ["00.jpg", "01.jpg", "07.jpg"]
    assert found.labels == ("dog", "old cat", "dog, big")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("first/01.jpg,", "line 3: no label"),
        ("first/01.jpg", "line 3: no label"),
        (",cat", "line 3: no path"),
        ("../first/01.jpg,cat", "not a path under the folder"),
        ("/etc/x.jpg,cat", "not a path under the folder"),
        ("first,cat", "is not a photo"),
        ("first/gone.jpg,cat", "line 3: first/gone.jpg: No such file"),
        ("second/../first/00.jpg,cat", "is also on line 2"),
    ],
)
def test_a_bad_row_is_named_by_its_line(photo_folder: Path, tmp_path: Path, row: str, told: str) -> None:
    table = write(tmp_path / "labels.csv", f"path,label\nfirst/00.jpg,dog\n{row}\n")
    with pytest.raises(LabelsError, match="1 bad rows") as caught:
        labels_of_csv(table, photo_folder)
    assert told in str(caught.value)


def test_many_bad_rows_are_counted(photo_folder: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "labels.csv", "path,label\n" + "".join(f"{i}.jpg,x\n" for i in range(9)))
    with pytest.raises(LabelsError, match=r"9 bad rows: .*line 4.*; and 6 more"):
        labels_of_csv(table, photo_folder)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it has none"),
        ("file,label\n", "it has file, label"),
        ("path,label,path\n", "once each"),
        ("path,label\n", "lists no photo"),
        (b"path,label\n\xff\xfe.jpg,a\n", "is not UTF-8"),
        ('path,label\n"first/00.jpg"x,cat\n', "line 2"),
    ],
)
def test_a_csv_that_is_none_is_one_clear_error(
    photo_folder: Path, tmp_path: Path, text: str | bytes, told: str
) -> None:
    with pytest.raises(LabelsError, match=told):
        labels_of_csv(write(tmp_path / "labels.csv", text), photo_folder)
