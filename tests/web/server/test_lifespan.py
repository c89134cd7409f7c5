"""What is made ready before anybody asks: the index as the server starts, the model once a page was seen."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vitmae_search.errors import ConfigError
from vitmae_search.library import Library
from vitmae_search.settings import settings
from vitmae_search.web.server import lifespan, session


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is opened, in order; the model's pause is left out."""
    opened: list[str] = []
    warm = Library.warm

    def noted(library: Library, *, model: bool = False) -> None:
        warm(library, model=model)
        opened.append("model" if model else "index")

    monkeypatch.setattr(Library, "warm", noted)
    monkeypatch.setattr(lifespan, "PAUSE", 0.0)
    lifespan._seen.clear()
    yield opened
    lifespan._seen.clear()


def started() -> threading.Thread:
    return next(thread for thread in threading.enumerate() if thread.name == "warm-up")


def test_the_index_at_once_and_the_model_after_the_first_page(opened: Library, opens: list[str]) -> None:
    async def serve() -> None:
        async with lifespan.lifespan(None):
            thread = started()
            while opens != ["index"]:
                await asyncio.sleep(0.01)
            assert opened._embedders._open == {}
            lifespan.page_seen()
            await asyncio.to_thread(thread.join, 60)
            assert opens == ["index", "model"]
            assert len(opened._embedders._open) == 1

    asyncio.run(serve())


def test_without_a_visitor_no_model_is_loaded(opened: Library, opens: list[str]) -> None:
    async def serve() -> threading.Thread:
        async with lifespan.lifespan(None):
            while opens != ["index"]:
                await asyncio.sleep(0.01)
            return started()

    thread = asyncio.run(serve())
    thread.join(60)
    assert not thread.is_alive()
    assert opens == ["index"]


def test_a_library_that_is_not_there_is_no_reason_to_fail(empty: Path, opens: list[str]) -> None:
    lifespan._seen.set()
    lifespan.warm()
    assert not empty.exists()


def test_what_goes_wrong_is_for_the_page_to_say(
    opened: Library, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(Library, "warm", broken)
    lifespan.warm()
    assert [record.levelname for record in caplog.records] in ([], ["INFO"])
    assert session.library().status().photos


# Idle


@pytest.fixture
def resting(
    failing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_photo: Callable[[Path, int], Path]
) -> Iterator[Library]:
    """The app's own library, of a plugin that counts its rests."""
    for seed in range(3):
        write_photo(tmp_path / "photos" / f"{seed}.jpg", seed)
    with Library.open(tmp_path / "library", embedder="failing", plugin_folders=[failing]) as library:
        library.index(tmp_path / "photos")
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    yield session.library()
    session.close_libraries()


def test_a_model_that_nobody_asks_rests_until_the_next_search(
    resting: Library,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_photo: Callable[[Path, int], Path],
) -> None:
    monkeypatch.setenv("VITMAE_SEARCH_IDLE_MINUTES", "0.002")
    other = write_photo(tmp_path / "other.jpg", 99)
    first = resting.search(Image.open(other)).hits
    (embedder,) = resting._embedders._open.values()

    async def rested(times: int) -> None:
        deadline = time.monotonic() + 60
        while embedder._opened.offloads < times:  # type: ignore[union-attr]
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    async def serve() -> None:
        async with lifespan.lifespan(None):
            await rested(1)
            again = await asyncio.to_thread(resting.search, other)
            assert [(hit.photo, hit.score) for hit in again.hits] == [(hit.photo, hit.score) for hit in first]
            await rested(2)
            (thread,) = [thread for thread in threading.enumerate() if thread.name == "idle"]
        await asyncio.to_thread(thread.join, 60)
        assert not thread.is_alive(), "it ends with the server"

    asyncio.run(serve())


def test_never_is_never(resting: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITMAE_SEARCH_IDLE_MINUTES", "0")

    async def serve() -> None:
        async with lifespan.lifespan(None):
            assert "idle" not in [thread.name for thread in threading.enumerate()]

    asyncio.run(serve())


def test_what_is_used_now_and_then_does_not_rest(resting: Library) -> None:
    assert resting.offload() == 0, "nothing is open"
    resting.search(Image.new("RGB", (8, 8)))
    assert resting.offload(idle_seconds=600) == 0
    assert resting.offload() == 1
    assert resting.offload() == 0, "it does already"


def test_a_rest_that_fails_leaves_the_model_as_it_was(
    resting: Library, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resting.search(Image.new("RGB", (8, 8)))
    (embedder,) = resting._embedders._open.values()

    def broken() -> None:
        raise RuntimeError("no bed")

    monkeypatch.setattr(embedder._opened, "offload", broken)
    assert resting.offload() == 0
    assert "no bed" in caplog.text
    assert len(resting.search(Image.new("RGB", (8, 8))).hits) == 3


@pytest.mark.parametrize("minutes", ["soon", "-1", "nan", "inf"])
def test_minutes_that_are_none(minutes: str) -> None:
    with pytest.raises(ConfigError, match=r"_IDLE_MINUTES='.*': must be a number of minutes"):
        settings({"VITMAE_SEARCH_IDLE_MINUTES": minutes})


def test_minutes() -> None:
    asked = ["", "0", "2.5"]
    assert [settings({"VITMAE_SEARCH_IDLE_MINUTES": one}).idle_minutes for one in asked] == [10, 0, 2.5]
