"""Labels from folders, their errors, and the split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitmae_search.errors import TrainingError
from vitmae_search.training.finetuning.labels import class_names, labels_of_folders, train_val_split


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


def test_a_single_class_is_refused() -> None:
    with pytest.raises(TrainingError, match="one class alone, 'cat'"):
        class_names(["cat", "cat"])


@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=8).filter(lambda c: max(c) > 1),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 1000),
)
def test_the_split_is_stratified_whole_and_repeatable(counts: list[int], share: float, seed: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    training, validation = train_val_split(labels, share, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([training, validation])), np.arange(len(labels)))
    for number, count in enumerate(counts):
        held = int((labels[validation] == number).sum())
        assert held == (0 if count == 1 else min(max(round(count * share), 1), count - 1))
    again = train_val_split(labels, share, seed)
    np.testing.assert_array_equal(again[0], training)
    np.testing.assert_array_equal(again[1], validation)


def test_other_seeds_hold_out_others_and_nothing_to_hold_out_is_an_error() -> None:
    labels = np.repeat(np.arange(3), 20)
    assert train_val_split(labels, 0.3, 0)[1].tolist() != train_val_split(labels, 0.3, 1)[1].tolist()
    with pytest.raises(TrainingError, match="one photo alone"):
        train_val_split(np.arange(4), 0.5, 0)
