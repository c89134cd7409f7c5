"""What visitors share: one library a folder, and the latest uploads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vitmae_search.web.server.session import Uploads, close_libraries, library


def test_an_upload_is_found_by_its_token() -> None:
    uploads = Uploads()
    token = uploads.add("a b.jpg", b"picture")
    found = uploads.get(token)
    assert found is not None
    assert (found.name, found.data, found.token) == ("a b.jpg", b"picture", token)
    assert uploads.add("other name.jpg", b"picture") == token
    assert uploads.add("a b.jpg", b"another") != token


def test_a_token_cannot_be_guessed_from_the_picture() -> None:
    assert Uploads().add("a", b"picture") != Uploads().add("a", b"picture")


def test_the_oldest_uploads_give_way_by_number() -> None:
    uploads = Uploads(kept=3)
    tokens = [uploads.add("x", bytes([i])) for i in range(3)]
    uploads.add("x", bytes([0]))  # used again, so the second is the oldest now
    uploads.add("x", b"new")
    assert [uploads.get(token) is not None for token in tokens] == [True, False, True]


def test_the_oldest_uploads_give_way_by_size_but_never_the_latest() -> None:
    uploads = Uploads(bytes_kept=10)
    first, second = uploads.add("x", b"1" * 6), uploads.add("x", b"2" * 6)
    assert uploads.get(first) is None
    assert uploads.get(second) is not None
    huge = uploads.add("x", b"3" * 100)
    assert uploads.get(huge) is not None


def test_uploads_from_many_threads_are_all_found() -> None:
    uploads = Uploads(kept=500)
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda i: uploads.add("x", str(i).encode()), range(400)))
    assert all(
        (found := uploads.get(token)) and found.data == str(i).encode() for i, token in enumerate(tokens)
    )


def test_threads_share_one_library_and_opening_creates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "here"))
    try:
        with ThreadPoolExecutor(8) as pool:
            assert len({id(opened) for opened in pool.map(lambda _: library(), range(16))}) == 1
        assert library().folder == tmp_path / "here"
        assert not (tmp_path / "here").exists()
    finally:
        close_libraries()
