"""What is made ready before anybody asks: the index as the server starts, the model once a page was seen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vitmae_search.library import Library
from vitmae_search.web import state, warming


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is opened, in order; the model's pause is left out."""
    opened: list[str] = []
    warm = Library.warm

    def noted(library: Library, *, model: bool = False) -> None:
        warm(library, model=model)
        opened.append("model" if model else "index")

    monkeypatch.setattr(Library, "warm", noted)
    monkeypatch.setattr(warming, "PAUSE", 0.0)
    warming._seen.clear()
    yield opened
    warming._seen.clear()


def started() -> threading.Thread:
    return next(thread for thread in threading.enumerate() if thread.name == "warm-up")


def test_the_index_at_once_and_the_model_after_the_first_page(opened: Library, opens: list[str]) -> None:
    async def serve() -> None:
        async with warming.lifespan(None):
            thread = started()
            while opens != ["index"]:
                await asyncio.sleep(0.01)
            assert opened._embedders._open == {}
            warming.page_seen()
            await asyncio.to_thread(thread.join, 60)
            assert opens == ["index", "model"]
            assert len(opened._embedders._open) == 1

    asyncio.run(serve())


def test_without_a_visitor_no_model_is_loaded(opened: Library, opens: list[str]) -> None:
    async def serve() -> threading.Thread:
        async with warming.lifespan(None):
            while opens != ["index"]:
                await asyncio.sleep(0.01)
            return started()

    thread = asyncio.run(serve())
    thread.join(60)
    assert not thread.is_alive()
    assert opens == ["index"]


def test_a_library_that_is_not_there_is_no_reason_to_fail(empty: Path, opens: list[str]) -> None:
    warming._seen.set()
    warming.warm()
    assert not empty.exists()


def test_what_goes_wrong_is_for_the_page_to_say(
    opened: Library, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(Library, "warm", broken)
    warming.warm()
    assert [record.levelname for record in caplog.records] in ([], ["INFO"])
    assert state.library().status().photos
