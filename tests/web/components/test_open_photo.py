"""In a real Chromium: an opened photo is a step of the history, and pages begin at their first photo."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vitmae_search.library import Library

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
expect.set_options(timeout=30_000)

StartServer = Callable[..., Any]


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    opened = chromium.new_page(viewport={"width": 1200, "height": 700})
    opened.set_default_timeout(30_000)
    yield opened
    opened.close()


def ranked(page: Any, rank: int) -> Any:
    return page.get_by_role("button", name=re.compile(f"rank {rank},"))


def test_back_closes_an_opened_photo_and_forward_opens_it(
    small: Any, start_server: StartServer, page: Any
) -> None:
    server = start_server(small.folder)
    page.goto(server.url)
    page.get_by_role("button", name="flower.jpg", exact=True).click()
    ranked(page, 2).click()
    dialog = page.get_by_role("dialog")
    score = dialog.get_by_text("(1 is the same picture)")
    expect(score).to_be_visible()
    opened = page.url
    assert "open=" in opened

    page.go_back()
    expect(dialog).to_be_hidden()
    expect(ranked(page, 1)).to_be_visible()
    page.go_forward()
    expect(score).to_be_visible()
    assert page.url == opened

    # Closed by hand it is no step more: Back then leaves the results.
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
    page.wait_for_url(lambda url: "open=" not in url)
    page.go_back()
    expect(page.get_by_text("Or start from one of yours")).to_be_visible()
    expect(dialog).to_be_hidden()

    # An address with an open photo, from a bookmark: closed, it is gone from the address.
    page.goto(opened)
    expect(score).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.wait_for_url(lambda url: "open=" not in url)
    expect(ranked(page, 1)).to_be_visible()


@pytest.mark.parametrize("width", [1200, 390])
def test_more_begins_at_the_first_new_photo_and_other_results_at_the_top(
    tmp_path: Path, write_photo: Callable[[Path, int], Path], start_server: StartServer, page: Any, width: int
) -> None:
    for seed in range(60):
        write_photo(tmp_path / "photos" / f"{seed:02}.jpg", seed)
    with Library.open(tmp_path / "library", embedder="color_layout") as library:
        library.index([tmp_path / "photos"])
    page.set_viewport_size({"width": width, "height": 700})
    page.goto(f"{start_server(tmp_path / 'library').url}/?photo=1")
    page.get_by_role("button", name="More", exact=True).click()
    expect(ranked(page, 25)).to_be_in_viewport(ratio=1)
    page.get_by_role("button", name="More", exact=True).click()
    expect(ranked(page, 49)).to_be_in_viewport(ratio=1)
    page.get_by_role("button", name="Back", exact=True).click()
    expect(ranked(page, 25)).to_be_in_viewport(ratio=1)
    last = ranked(page, 48)
    last.hover()
    last.locator("xpath=..").get_by_role("button", name=re.compile("^More like ")).click()
    expect(ranked(page, 1)).to_be_in_viewport(ratio=1)
    expect(page.locator(".vs-query")).to_be_in_viewport(ratio=1)
    page.get_by_role("button", name="New search").click()
    expect(page.get_by_text("Page 1 of 3")).to_be_visible()
    page.get_by_role("button", name="More", exact=True).click()
    expect(page.get_by_text("Page 2 of 3")).to_be_visible()
    expect(page.locator(".tile .open").first).to_be_in_viewport(ratio=1)
