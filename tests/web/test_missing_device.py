"""A device that is missing or lost: the pages say so in one sentence, and known photos are still found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from vitmae_search.library import Library
from vitmae_search.web.server import session
from vitmae_search.web.server.app import MAIN_SCRIPT


@pytest.fixture
def photos(tmp_path: Path, write_photo: Callable[[Path, int], Path]) -> Path:
    for seed in range(4):
        write_photo(tmp_path / "photos" / f"{seed}.jpg", seed)
    return tmp_path / "photos"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Library]]:
    """Open tmp_path/library as the app's own."""
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    yield session.library
    session.close_libraries()


def said(script: str, **query: str) -> str:
    at = AppTest.from_file(str(MAIN_SCRIPT), default_timeout=60)
    at.run()
    if script != "../pages/search.py":
        at.switch_page(script)
    for name, value in query.items():
        at.query_params[name] = value
    at.run()
    assert not at.exception, at.exception
    return unescape(" ".join(str(block.proto.body) for block in at.get("html")))


@pytest.mark.parametrize("page", ["../pages/search.py", "../pages/reconstructions.py"])
def test_a_device_that_is_not_here(
    app: Callable[[], Library],
    photos: Path,
    colour_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_photo: Callable[[Path, int], Path],
    page: str,
) -> None:
    with Library.open(tmp_path / "library", model=str(colour_model), device="cpu") as library:
        library.index(photos)
    monkeypatch.setenv("VITMAE_SEARCH_DEVICE", "cuda:99")
    app()
    token = session.uploads.add("other.jpg", write_photo(tmp_path / "other.jpg", 99).read_bytes())
    words = said(page, upload=token)
    assert words.count("cuda:99: ") == 1
    assert "VITMAE_SEARCH_DEVICE" in words
    assert "Something went wrong" not in words
    if page == "../pages/search.py":
        assert "by its stored fingerprint" in said(page, photo="1")


def test_a_device_that_was_lost(
    app: Callable[[], Library],
    photos: Path,
    failing: Path,
    tmp_path: Path,
    write_photo: Callable[[Path, int], Path],
) -> None:
    with Library.open(tmp_path / "library", embedder="failing", plugin_folders=[failing]) as library:
        library.index(photos)
    app()
    tokens = [
        session.uploads.add("other.jpg", write_photo(tmp_path / f"{seed}.jpg", seed).read_bytes())
        for seed in (98, 99)
    ]
    assert "a fingerprint made just now" in said("../pages/search.py", upload=tokens[0])
    (failing / "lost").write_text("0")
    for page in ("../pages/search.py", "../pages/reconstructions.py"):
        assert "The device was lost; what was done is kept" in said(page, upload=tokens[1])
    assert "by its stored fingerprint" in said("../pages/search.py", photo="1")
    (failing / "lost").unlink()
    (failing / "room").write_text("0")
    assert "has not enough memory to look at a single photo" in said("../pages/search.py", upload=tokens[1])
    assert "has not enough memory to reconstruct a photo" in said(
        "../pages/reconstructions.py", upload=tokens[1]
    )


def test_a_lost_device_does_not_affect_library_and_training_pages(
    app: Callable[[], Library], photos: Path, failing: Path, tmp_path: Path
) -> None:
    (failing / "lost").write_text("0")
    with Library.open(tmp_path / "library", plugin_folders=[failing]) as library:
        key = library.start_job("index", photos, "--embedder", "failing")
        while (run := library.job(key)) is None or run.state == "running":
            pass
    app()
    assert "failed: the device was lost" in said("../pages/library.py")
    assert "Something went wrong" not in said("../pages/training.py")
