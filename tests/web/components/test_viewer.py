"""The viewer in a real Chromium; and pages of results begin at their first photo."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.touch import stroke
from vitmae_search.library import Library

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

StartServer = Callable[..., Any]


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
    place = dialog.get_by_text("2 of 13")
    expect(place).to_be_visible()
    opened = page.url
    assert "open=" in opened
    assert "library=" in opened

    page.go_back()
    expect(dialog).to_be_hidden()
    expect(ranked(page, 1)).to_be_visible()
    page.go_forward()
    expect(place).to_be_visible()
    assert page.url == opened

    # Closed by hand it is no step more: Back then leaves the results.
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
    page.wait_for_url(lambda url: "open=" not in url)
    page.go_back()
    expect(page.get_by_text("Or start from one of yours")).to_be_visible()
    expect(dialog).to_be_hidden()

    # An address with an open photo, from a bookmark: closed, it is gone from the address for good.
    page.goto(opened)
    expect(place).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.wait_for_url(lambda url: "open=" not in url)
    ranked(page, 1).hover()
    ranked(page, 1).locator("xpath=..").get_by_role("button", name=re.compile("^More like ")).click()
    expect(page.locator(".vs-name")).not_to_have_text("flower.jpg")
    expect(dialog).to_be_hidden()


def test_keys_go_on_zoom_copy_the_path_and_download(small: Any, start_server: StartServer, page: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{start_server(small.folder).url}/?photo=1")
    ranked(page, 1).click()
    dialog = page.get_by_role("dialog")
    picture = dialog.get_by_role("img")
    first, second = (ranked(page, rank).get_attribute("title") for rank in (1, 2))
    page.keyboard.press("ArrowLeft")  # there is none before the first
    expect(picture).to_have_attribute("alt", first)
    page.keyboard.press("ArrowRight")
    expect(picture).to_have_attribute("alt", second)
    expect(picture).to_have_attribute("src", re.compile("/photo/"))
    page.reload()
    expect(picture).to_have_attribute("alt", second)

    expect(picture).to_have_css("transform", "matrix(1, 0, 0, 1, 0, 0)")
    box = picture.bounding_box()
    page.mouse.dblclick(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(picture).to_have_css("transform", "matrix(3, 0, 0, 3, 0, 0)")
    page.mouse.wheel(0, 10_000)
    expect(picture).to_have_css("transform", "matrix(1, 0, 0, 1, 0, 0)")

    page.keyboard.press("c")
    expect(dialog.get_by_text("The path is copied.")).to_be_visible()
    path = Path(page.evaluate("navigator.clipboard.readText()"))
    assert path.name == second
    with page.expect_download() as download:
        page.keyboard.press("d")
    assert download.value.suggested_filename == second
    assert Path(download.value.path()).read_bytes() == path.read_bytes()
    page.go_back()
    expect(dialog).to_be_hidden()  # going on was no step of the history


def test_a_finger_goes_on_zooms_and_closes(small: Any, start_server: StartServer, phone: Any) -> None:
    phone.goto(f"{start_server(small.folder).url}/?photo=1")
    ranked(phone, 1).tap()
    dialog = phone.get_by_role("dialog")
    picture = dialog.get_by_role("img")
    second = ranked(phone, 2).get_attribute("title")
    expect(dialog).to_be_visible()
    stroke(phone, [(300, 400), (200, 400), (80, 400)])
    expect(picture).to_have_attribute("alt", second)
    stroke(phone, [(180, 400), (100, 400)], [(210, 400), (290, 400)])
    expect(picture).to_have_css("transform", re.compile(r"^matrix\((4|5|6|7)"))
    phone.keyboard.press("0")
    stroke(phone, [(200, 300), (200, 560)])
    expect(dialog).to_be_hidden()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("width", [1200, 390])
def test_further_hits_come_by_scrolling_and_other_results_begin_at_the_top(
    tmp_path: Path, write_photo: Callable[[Path, int], Path], start_server: StartServer, page: Any, width: int
) -> None:
    for seed in range(60):
        write_photo(tmp_path / "photos" / f"{seed:02}.jpg", seed)
    with Library.open(tmp_path / "library", embedder="color_layout") as library:
        library.index([tmp_path / "photos"])
    page.set_viewport_size({"width": width, "height": 700})
    server = start_server(tmp_path / "library")
    page.goto(f"{server.url}/?photo=1&page=2")
    expect(ranked(page, 25)).to_be_in_viewport(ratio=1)
    page.get_by_role("button", name="Back", exact=True).click()
    for rank in (1, 24, 48):
        ranked(page, rank).scroll_into_view_if_needed()
    last = ranked(page, 48)
    last.hover()
    last.locator("xpath=..").get_by_role("button", name=re.compile("^More like ")).click()
    expect(ranked(page, 1)).to_be_in_viewport(ratio=1)
    expect(page.locator(".st-key-vs_query")).to_be_in_viewport(ratio=1)
