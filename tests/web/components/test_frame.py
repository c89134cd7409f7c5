"""In a real Chromium: a server that goes away and comes back, photos that are gone, and a phone's menu."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitmae_search.library import Library

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

StartServer = Callable[..., Any]


@pytest.fixture
def page(page: Any) -> Any:
    """A window that shows a part of the photos alone."""
    page.set_viewport_size({"width": 800, "height": 500})
    page.set_default_timeout(60_000)
    return page


@pytest.fixture
def many(tmp_path: Path, write_photo: Callable[[Path, int], Path]) -> Path:
    """A library of 60 photos: more than a window shows."""
    for seed in range(60):
        write_photo(tmp_path / "photos" / f"{seed:02}.jpg", seed)
    with Library.open(tmp_path / "library", embedder="color_layout") as library:
        library.index([tmp_path / "photos"])
    return tmp_path / "library"


def test_what_could_not_be_fetched_is_said_so_and_fetched_when_the_server_is_back(
    many: Path, start_server: StartServer, page: Any
) -> None:
    server = start_server(many)
    page.goto(f"{server.url}/?photo=1&k=96")
    last = page.get_by_role("button", name=re.compile("rank 59,"))
    expect(last).to_be_visible()
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(30)
    last.scroll_into_view_if_needed()
    expect(last.get_by_text("Not loaded. Trying again…")).to_be_visible()
    expect(page.get_by_text("The program that shows these pages does not answer.")).to_be_visible()
    expect(page.get_by_text("Connection error")).to_have_count(1)  # Streamlit's own dialog
    expect(page.get_by_text("Are you connected to the internet?")).to_be_hidden()
    expect(page.get_by_text("Not on disk")).to_have_count(0)

    start_server(many, port=server.port)
    expect(page.get_by_text("Not loaded. Trying again…")).to_have_count(0)
    last.locator("img").evaluate("image => image.decode()")
    expect(page.get_by_text("The program that shows these pages does not answer.")).to_be_hidden()


def test_a_photo_is_not_on_disk_where_the_server_says_so(
    many: Path, start_server: StartServer, page: Any
) -> None:
    shutil.rmtree(many / "thumbnails")
    photo = many.parent / "photos" / "07.jpg"
    photo.unlink()
    page.goto(f"{start_server(many).url}/?photo=1&k=96")
    gone = page.get_by_role("button", name=re.compile("^07.jpg, rank"))
    gone.scroll_into_view_if_needed()
    expect(gone.get_by_text("Not on disk")).to_be_visible()
    gone.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Not on disk")).to_be_visible()
    page.keyboard.press("i")
    expect(dialog.get_by_text(str(photo))).to_be_visible()


def test_a_phones_menu_closes_with_a_choice(many: Path, start_server: StartServer, chromium: Any) -> None:
    page = chromium.new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.goto(start_server(many).url)
    expect(page.locator(".tile").first).to_be_visible()
    for name in ("Library", "Training", "Training"):
        page.get_by_test_id("stExpandSidebarButton").tap()
        page.get_by_role("link", name=name).tap()
        expect(page.get_by_role("heading", name=name, level=1)).to_be_in_viewport(ratio=1)
        expect(page.get_by_role("link", name="Plugins")).not_to_be_in_viewport()
    page.close()
