"""Photos are selected on the page, and become a part of the query."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.helpers.app_pages import open_app
from vitmae_search.library import Library


def hits(at: AppTest) -> list[int]:
    grids = [json.loads(grid.proto.json) for grid in at.get("bidi_component") if "vs_hits" in grid.proto.id]
    return [photo["id"] for photo in grids[0]["photos"]]


def ids(library: Library) -> list[int]:
    return [photo.photo_id for photo in library.photos()]


def test_the_address_has_the_pictures_of_the_query(opened: Library) -> None:
    first, second, third, *_ = ids(opened)
    at = open_app(photo=str(first), more=f"{second}x2", less=f"{third}_999999_nonsense")
    found = opened.search_examples([first, (second, 2.0)], [third], k=24).hits
    assert hits(at) == [hit.photo.photo_id for hit in found]
    assert at.selectbox(key=f"vs_weight_more_{second}").value == 2.0


def test_weights_are_changed_and_pictures_taken_out(opened: Library) -> None:
    first, second, third, *_ = ids(opened)
    at = open_app(photo=str(first), more=f"{second}_{third}", page="2")
    at.selectbox(key=f"vs_weight_more_{third}").set_value(0.5).run()
    assert at.query_params["more"] == f"{second}_{third}x0.5"
    assert "page" not in at.query_params
    at.button(key=f"vs_example_out_more_{second}").click().run()
    assert at.query_params["more"] == f"{third}x0.5"
    at.button(key=f"vs_example_out_more_{third}").click().run()
    assert "more" not in at.query_params
    assert hits(at) == [hit.photo.photo_id for hit in opened.similar(first, k=24).hits]


def test_selected_photos_are_asked_for(opened: Library) -> None:
    first, second, *_ = ids(opened)
    at = open_app(photo=str(first), less=str(second))
    at.toggle(key="vs_selecting").set_value(True).run()
    assert at.button(key="vs_more").disabled
    at.button(key="vs_select_all").click().run()
    shown = hits(at)
    at.button(key="vs_more").click().run()
    assert at.query_params["more"] == "_".join(map(str, sorted(shown)))
    assert at.query_params["less"] == str(second)
    assert not hits(at)  # all are in the query


@pytest.mark.browser
def test_taps_select_and_the_query_changes(
    opened: Library, small: Any, start_server: Callable[..., Any], chromium: Any, tmp_path: Path
) -> None:
    first = next(photo.photo_id for photo in opened.photos() if photo.path.endswith("coffee.jpg"))
    server = start_server(small.folder)
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{server.url}/?photo={first}")
    page.get_by_text("Select", exact=True).click()
    tiles = page.locator(".grid .open[aria-pressed]")
    tiles.first.wait_for()
    tiles.nth(0).click()
    page.get_by_text("1 selected").wait_for()
    tiles.nth(2).focus()
    page.keyboard.press("Enter")
    page.get_by_text("2 selected").wait_for()
    page.locator(".tile.selected").nth(1).wait_for()
    chosen = sorted(int(tile.get_attribute("data-photo")) for tile in page.locator(".selected .open").all())
    shots = os.environ.get("SCREENSHOTS")
    if shots:
        page.screenshot(path=f"{shots}/selected.png")
    page.get_by_role("button", name="Less like these").click()
    page.get_by_text("Less like", exact=True).wait_for()
    page.wait_for_function(f"location.search.includes('less={chosen[0]}_{chosen[1]}')")
    if shots:
        page.wait_for_timeout(1500)
        page.screenshot(path=f"{shots}/less.png")
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(1000)
        page.screenshot(path=f"{shots}/less-phone.png")
    page.close()
