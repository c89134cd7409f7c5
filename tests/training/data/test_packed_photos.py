from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.errors import TrainingError
from vitmae_search.training.data.packed_photos import pack


def test_rows_are_the_photos_in_path_order(photo_folder: Path, tmp_path: Path) -> None:
    packed = pack(photo_folder, tmp_path, side=32)
    files = sorted(photo_folder.rglob("*.jpg"))
    assert packed.images.shape == (12, 32, 32, 3)
    assert packed.images.dtype == np.uint8
    for row, path in zip(packed.images, files, strict=True):
        with Image.open(path) as image:
            middle = image.crop((4, 0, 44, 40)).resize((32, 32), Image.Resampling.BICUBIC)
        assert np.abs(row.astype(int) - np.asarray(middle, int)).mean() < 1.0


def test_an_unreadable_photo_is_listed_and_shifts_no_row(photo_folder: Path, tmp_path: Path) -> None:
    whole = pack(photo_folder, tmp_path / "whole", side=16)
    damaged = shutil.copytree(photo_folder, tmp_path / "photos")
    files = sorted(damaged.rglob("*.jpg"))
    files[3].write_bytes(files[3].read_bytes()[:300])
    packed = pack(damaged, tmp_path / "damaged", side=16)
    assert [path for path, _ in packed.failures] == [str(files[3])]
    assert packed.failures[0][1]
    np.testing.assert_array_equal(packed.images, np.delete(np.asarray(whole.images), 3, axis=0))


def test_packed_photos_are_used_again_until_a_file_changes(photo_folder: Path, tmp_path: Path) -> None:
    photos = shutil.copytree(photo_folder, tmp_path / "photos")
    cache = tmp_path / "cache"
    decoded: list[int] = []

    def packed() -> str:
        return pack(photos, cache, side=16, on_progress=lambda done, _: decoded.append(done)).signature

    first = packed()
    assert decoded == [12]
    assert packed() == first
    assert decoded == [12]
    (photos / "new.jpg").write_bytes((photos / "first/00.jpg").read_bytes())
    assert packed() != first
    assert decoded == [12, 13]


def test_a_cache_cut_short_is_made_again(photo_folder: Path, tmp_path: Path) -> None:
    before = np.array(pack(photo_folder, tmp_path, side=16).images)
    (tmp_path / "images.u8").write_bytes(b"\0" * 100)
    np.testing.assert_array_equal(pack(photo_folder, tmp_path, side=16).images, before)


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.raises(TrainingError, match="no photos"):
        pack(tmp_path, tmp_path / "cache", side=16)
    (tmp_path / "bad.jpg").write_bytes(b"not a photo")
    with pytest.raises(TrainingError, match="no photo could be read"):
        pack(tmp_path, tmp_path / "cache", side=16)


def test_a_folder_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nowhere"):
        pack(tmp_path / "nowhere", tmp_path / "cache", side=16)


def test_photos_that_the_disk_has_no_room_for_are_refused_before_any_is_decoded(
    photo_folder: Path, tmp_path: Path
) -> None:
    decoded: list[int] = []
    with pytest.raises(TrainingError, match=r"need 3600000\.0 GB .* GB left"):
        pack(photo_folder, tmp_path, side=10_000_000, on_progress=lambda done, _: decoded.append(done))
    assert not decoded
