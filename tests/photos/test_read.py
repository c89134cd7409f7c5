from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from vitmae_search.errors import PhotoTooLarge, UnreadablePhoto
from vitmae_search.photos import digest, read_photo


def test_bytes_come_back_whole(tmp_path: Path) -> None:
    data = os.urandom(300_000)
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert read_photo(path) == data
    assert digest(data) == hashlib.sha256(data).hexdigest()
    assert read_photo(os.fspath(path), max_bytes=len(data)) == data
    with pytest.raises(PhotoTooLarge, match=r"more than the limit of 0\.3 MB"):
        read_photo(path, max_bytes=len(data) - 1)


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    expected = {
        str(tmp_path / "nowhere.jpg"): "No such file or directory",
        str(tmp_path): "not a file",
        str(tmp_path / "fifo.jpg"): "not a file",
        str(tmp_path / "null\0.jpg"): "embedded null byte",
        "/dev/zero": "not a file",
    }
    for path, reason in expected.items():
        with pytest.raises(UnreadablePhoto) as caught:
            read_photo(path)
        assert (caught.value.path, caught.value.reason) == (path, reason)
        assert pickle.loads(pickle.dumps(caught.value)).reason == reason


def test_a_file_without_permission(locked: tuple[Path, Callable[[], AbstractContextManager[None]]]) -> None:
    folder, permissions_hold = locked
    path = folder / "a.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    with permissions_hold(), pytest.raises(UnreadablePhoto, match=r"a\.jpg: Permission denied"):
        read_photo(path)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
def test_no_file_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "a.jpg").write_bytes(b"12")
    for _ in range(20):
        with pytest.raises(UnreadablePhoto):
            read_photo(tmp_path)
        with pytest.raises(PhotoTooLarge):
            read_photo(tmp_path / "a.jpg", max_bytes=1)
        read_photo(tmp_path / "a.jpg")
    assert len(os.listdir("/proc/self/fd")) == before
