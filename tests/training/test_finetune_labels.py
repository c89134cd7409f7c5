"""Labels from folders and from CSV files, what is wrong with them, and the split."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitmae_search.errors import TrainingError
from vitmae_search.training.finetuning.labels import class_names, labels_of_csv, labels_of_folders, split


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_first_folder_is_the_class(coloured_folder: Path) -> None:
    found = labels_of_folders(coloured_folder)
    assert len(found) == 60
    assert class_names(found.labels) == ("blue", "green", "red")
    for stamp, label in zip(found.files, found.labels, strict=True):
        assert Path(stamp.path).relative_to(coloured_folder).parts[0] == label


def test_photos_in_no_folder_are_counted(photo_folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "1.jpg", (photo_folder / "first/00.jpg").read_bytes())
    write(tmp_path / "loose.jpg", (photo_folder / "first/01.jpg").read_bytes())
    found = labels_of_folders(tmp_path)
    assert (found.labels, found.unlabelled) == (("a", "b"), 1)
    with pytest.raises(TrainingError, match="lie in no folders"):
        labels_of_folders(tmp_path / "a")


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
    with pytest.raises(TrainingError, match="1 bad rows") as caught:
        labels_of_csv(table, photo_folder)
    assert told in str(caught.value)


def test_many_bad_rows_are_counted(photo_folder: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "labels.csv", "path,label\n" + "".join(f"{i}.jpg,x\n" for i in range(9)))
    with pytest.raises(TrainingError, match=r"9 bad rows: .*line 4.*; and 6 more"):
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
    with pytest.raises(TrainingError, match=told):
        labels_of_csv(write(tmp_path / "labels.csv", text), photo_folder)


def test_one_class_alone_is_refused() -> None:
    with pytest.raises(TrainingError, match="one class alone, 'cat'"):
        class_names(["cat", "cat"])


@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=8).filter(lambda c: max(c) > 1),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 1000),
)
def test_the_split_is_stratified_whole_and_repeatable(counts: list[int], share: float, seed: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    training, validation = split(labels, share, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([training, validation])), np.arange(len(labels)))
    for number, count in enumerate(counts):
        held = int((labels[validation] == number).sum())
        assert held == (0 if count == 1 else min(max(round(count * share), 1), count - 1))
    again = split(labels, share, seed)
    np.testing.assert_array_equal(again[0], training)
    np.testing.assert_array_equal(again[1], validation)


def test_other_seeds_hold_out_others_and_nothing_to_hold_out_is_an_error() -> None:
    labels = np.repeat(np.arange(3), 20)
    assert split(labels, 0.3, 0)[1].tolist() != split(labels, 0.3, 1)[1].tolist()
    with pytest.raises(TrainingError, match="one photo alone"):
        split(np.arange(4), 0.5, 0)
