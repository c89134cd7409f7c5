"""What the server preloads, the index at its start and the model after the first page, and offloads."""

from __future__ import annotations

import asyncio
import os
import shutil
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
    preload = Library.preload

    def recorded(library: Library, *, model: bool = False) -> None:
        preload(library, model=model)
        opened.append("model" if model else "index")

    monkeypatch.setattr(Library, "preload", recorded)
    monkeypatch.setattr(lifespan, "MODEL_DELAY", 0.0)
    lifespan._page_shown.clear()
    yield opened
    lifespan._page_shown.clear()


def preload_thread() -> threading.Thread:
    return next(thread for thread in threading.enumerate() if thread.name == "preload")


def test_the_index_at_once_and_the_model_after_the_first_page(opened: Library, opens: list[str]) -> None:
    async def serve() -> None:
        async with lifespan.lifespan(None):
            thread = preload_thread()
            while opens != ["index"]:
                await asyncio.sleep(0.01)
            assert opened._embedders._open == {}
            lifespan.page_shown()
            await asyncio.to_thread(thread.join, 60)
            assert opens == ["index", "model"]
            assert len(opened._embedders._open) == 1

    asyncio.run(serve())


def test_without_a_visitor_no_model_is_loaded(opened: Library, opens: list[str]) -> None:
    async def serve() -> threading.Thread:
        async with lifespan.lifespan(None):
            while opens != ["index"]:
                await asyncio.sleep(0.01)
            return preload_thread()

    thread = asyncio.run(serve())
    thread.join(60)
    assert not thread.is_alive()
    assert opens == ["index"]


def test_all_libraries_are_opened_and_a_model_is_loaded_where_a_page_was_shown(
    opened: Library, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small.folder, tmp_path / "second")
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARIES", f"{small.folder}{os.pathsep}{tmp_path}/second")
    done: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        Library, "preload", lambda library, *, model=False: done.append((library.folder.name, model))
    )
    monkeypatch.setattr(lifespan, "MODEL_DELAY", 0.0)
    lifespan._page_shown.set()
    lifespan._server_ended.clear()
    lifespan._with_model.clear()
    lifespan.preload()
    assert done == [("library", False), ("second", False), ("library", True)]
    with session.requested_folder(tmp_path / "second"):
        lifespan.page_shown()
        lifespan.page_shown()
    for thread in threading.enumerate():
        if thread.name == "preload model":
            thread.join(30)
    assert done[3:] == [("second", True)]
    lifespan._page_shown.clear()


def test_a_missing_library_is_not_an_error(empty: Path, opens: list[str]) -> None:
    lifespan._page_shown.set()
    lifespan.preload()
    assert not empty.exists()


def test_errors_while_preloading_are_left_to_the_page(
    opened: Library, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(Library, "preload", broken)
    lifespan.preload()
    assert [record.levelname for record in caplog.records] in ([], ["INFO"])
    assert session.library().status().photos


# Idle


@pytest.fixture
def idle_library(
    failing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_photo: Callable[[Path, int], Path]
) -> Iterator[Library]:
    """The app's own library, of a plugin that counts how often it is offloaded."""
    for seed in range(3):
        write_photo(tmp_path / "photos" / f"{seed}.jpg", seed)
    with Library.open(tmp_path / "library", embedder="failing", plugin_folders=[failing]) as library:
        library.index(tmp_path / "photos")
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    yield session.library()
    session.close_libraries()


def test_an_idle_model_is_offloaded_until_the_next_search(
    idle_library: Library,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_photo: Callable[[Path, int], Path],
) -> None:
    monkeypatch.setenv("VITMAE_SEARCH_IDLE_MINUTES", "0.002")
    other = write_photo(tmp_path / "other.jpg", 99)
    first = idle_library.search(Image.open(other)).hits
    (embedder,) = idle_library._embedders._open.values()

    async def offloaded(times: int) -> None:
        deadline = time.monotonic() + 60
        while embedder._opened.offloads < times:  # type: ignore[union-attr]
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    async def serve() -> None:
        async with lifespan.lifespan(None):
            await offloaded(1)
            again = await asyncio.to_thread(idle_library.search, other)
            assert [(hit.photo, hit.score) for hit in again.hits] == [(hit.photo, hit.score) for hit in first]
            await offloaded(2)
            (thread,) = [thread for thread in threading.enumerate() if thread.name == "idle"]
        await asyncio.to_thread(thread.join, 60)
        assert not thread.is_alive(), "it ends with the server"

    asyncio.run(serve())


def test_zero_minutes_never_offload(idle_library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITMAE_SEARCH_IDLE_MINUTES", "0")

    async def serve() -> None:
        async with lifespan.lifespan(None):
            assert "idle" not in [thread.name for thread in threading.enumerate()]

    asyncio.run(serve())


def test_a_model_in_use_is_not_offloaded(idle_library: Library) -> None:
    assert idle_library.offload() == 0, "nothing is open"
    idle_library.search(Image.new("RGB", (8, 8)))
    assert idle_library.offload(after=600) == 0
    assert idle_library.offload() == 1
    assert idle_library.offload() == 0, "it is already"


def test_a_failed_offload_leaves_the_model_as_it_was(
    idle_library: Library, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    idle_library.search(Image.new("RGB", (8, 8)))
    (embedder,) = idle_library._embedders._open.values()

    def broken() -> None:
        raise RuntimeError("no bed")

    monkeypatch.setattr(embedder._opened, "offload", broken)
    assert idle_library.offload() == 0
    assert "no bed" in caplog.text
    assert len(idle_library.search(Image.new("RGB", (8, 8))).hits) == 3


@pytest.mark.parametrize("minutes", ["soon", "-1", "nan", "inf"])
def test_invalid_minutes_are_refused(minutes: str) -> None:
    with pytest.raises(ConfigError, match=r"_IDLE_MINUTES='.*': must be a number of minutes"):
        settings({"VITMAE_SEARCH_IDLE_MINUTES": minutes})


def test_valid_minutes() -> None:
    values = ["", "0", "2.5"]
    assert [settings({"VITMAE_SEARCH_IDLE_MINUTES": one}).idle_minutes for one in values] == [10, 0, 2.5]
