"""In a real Chromium: the app with the keyboard alone, and pictures that are pasted or dropped anywhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

StartServer = Callable[..., Any]

HAND_OVER = """([kind, name, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
  const how = { bubbles: true, cancelable: true, composed: true };
  const event = kind === "paste"
    ? new ClipboardEvent(kind, { ...how, clipboardData: transfer })
    : new DragEvent(kind, { ...how, dataTransfer: transfer });
  document.querySelector("h1").dispatchEvent(event);
}"""


# As on a page that is opened for the first time: the button comes after the photos.
BUTTON_COMES_LATER = """() => {
  const { classList } = document.querySelector(".st-key-vs_new");
  classList.remove("st-key-vs_new");
  setTimeout(() => classList.add("st-key-vs_new"), 300);
}"""


def test_from_page_to_page_to_a_photo_and_more_like_it(
    small: Any, start_server: StartServer, page: Any
) -> None:
    page.goto(start_server(small.folder).url)
    expect(page.locator(".tile").first).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("b")
    expect(page.get_by_role("heading", name="Browse", level=1)).to_be_visible()
    expect(page.locator(".tile").nth(13)).to_be_visible()
    page.keyboard.press("p")
    opens = page.locator(".tile .open")
    expect(opens.nth(0)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(opens.nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    expect(opens.nth(1)).to_be_focused()
    name = opens.nth(1).get_attribute("title")
    page.keyboard.press("Enter")
    photo = page.get_by_role("dialog", name="Photo")
    expect(photo).to_be_visible()
    page.keyboard.press("?")
    keys = page.get_by_role("dialog", name="Keys")
    expect(keys.get_by_text("what the model sees")).to_be_visible()
    page.keyboard.press("Escape")
    expect(keys).to_be_hidden()
    expect(photo).to_be_visible()
    page.keyboard.press("s")
    expect(page.locator(".vs-name")).to_have_text(name)
    expect(page.get_by_role("button", name=re.compile("rank 1,"))).to_be_visible()
    expect(photo).to_be_hidden()  # it takes keys until then
    page.evaluate(BUTTON_COMES_LATER)
    page.keyboard.press("n")
    expect(page.get_by_text("Or start from one of yours")).to_be_visible()


def test_a_letter_that_is_typed_is_no_key(small: Any, start_server: StartServer, page: Any) -> None:
    page.goto(f"{start_server(small.folder).url}/library")
    field = page.get_by_role("textbox", name="Add another folder")
    field.press_sequentially("gb?n")
    expect(field).to_have_value("gb?n")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.url.endswith("/library")


def test_a_picture_is_pasted_or_dropped_anywhere(
    small: Any, start_server: StartServer, page: Any, tmp_path: Path
) -> None:
    page.goto(f"{start_server(small.folder).url}/browse")
    expect(page.locator(".tile").first).to_be_visible()

    def hand_over(kind: str, name: str) -> None:
        data = base64.b64encode((small.photos / name).read_bytes()).decode()
        page.evaluate(HAND_OVER, [kind, name, data])

    hand_over("dragover", "china.jpg")
    expect(page.get_by_text("Drop the picture to search with it")).to_be_visible()
    hand_over("drop", "china.jpg")
    expect(page.locator(".vs-name")).to_have_text("china.jpg")
    assert re.search(r"/\?upload=[0-9a-f]{32}$", page.url)
    expect(page.get_by_role("button", name=re.compile("^china.jpg, rank 1,"))).to_be_visible()
    hand_over("paste", "rocket.jpg")  # also where hits are shown
    expect(page.locator(".vs-name")).to_have_text("rocket.jpg")
    expect(page.get_by_role("button", name=re.compile("^rocket.jpg, rank 1,"))).to_be_visible()
    page.go_back()
    expect(page.locator(".vs-name")).to_have_text("china.jpg")
