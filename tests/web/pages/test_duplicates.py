"""The Duplicates page: groups, other scores, and decisions that can be undone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.helpers.app_pages import open_page, undo_button
from vitmae_search.library import Library

SCORE = "0.93"


def groups(at: AppTest) -> list[list[int]]:
    grids = [json.loads(grid.proto.json) for grid in at.get("bidi_component") if "vs_group_" in grid.proto.id]
    return [[photo["id"] for photo in grid["photos"]] for grid in grids]


def said(at: AppTest) -> str:
    return unescape(" ".join(str(block.proto.body) for block in at.get("html")))


def test_groups_are_those_of_the_library(opened: Library) -> None:
    at = open_page("../pages/duplicates.py", score=SCORE)
    found = opened.duplicates(min_score=float(SCORE))
    assert groups(at) == [[shown.photo.photo_id for shown in group.photos] for group in found.groups][:10]
    assert groups(at)
    assert f"{len(found.groups)} groups among {found.compared} pictures" in said(at)
    assert not at.markdown  # Streamlit would show a text that stands alone in a page's file


def test_a_group_is_ignored_and_comes_back(opened_copy: Library) -> None:
    at = open_page("../pages/duplicates.py", score=SCORE)
    before = groups(at)
    at.button(key=f"vs_group_{before[0][0]}_ignore").click().run()
    assert groups(at) == before[1:]
    at.toggle(key="vs_ignored").set_value(True).run()
    assert groups(at) == before
    undo_button(at).click().run()
    assert groups(open_page("../pages/duplicates.py", score=SCORE)) == before


def test_photos_that_are_guessed_worst(opened: Library) -> None:
    at = open_page("../pages/duplicates.py", view="surprising")
    (grid,) = (
        json.loads(each.proto.json) for each in at.get("bidi_component") if "vs_unusual" in each.proto.id
    )
    found = opened.badly_reconstructed(k=48).hits
    assert [photo["id"] for photo in grid["photos"]] == [hit.photo.photo_id for hit in found]


def test_unusual_photos_and_more_like_one(opened: Library) -> None:
    at = open_page("../pages/duplicates.py", view="unusual")
    grids = [
        json.loads(grid.proto.json) for grid in at.get("bidi_component") if "vs_unusual" in grid.proto.id
    ]
    found = opened.unusual(k=48).hits
    assert [photo["id"] for photo in grids[0]["photos"]] == [hit.photo.photo_id for hit in found]
    assert not groups(at)


@pytest.mark.browser
def test_the_page_in_a_browser(
    opened_copy: Library, start_server: Callable[..., Any], chromium: Any, tmp_path: Path
) -> None:
    shutil.copytree(opened_copy.folder, tmp_path / "served")
    server = start_server(tmp_path / "served")
    page = chromium.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(f"{server.url}/duplicates?score={SCORE}")
    second = page.locator(".grid").first.locator(".open").nth(1)
    second.wait_for()
    kept = int(second.get_attribute("data-photo"))
    second.click()
    keep = page.get_by_role("button", name="Keep the selected").first
    page.locator(".tile.selected").first.wait_for()
    shots = os.environ.get("SCREENSHOTS")
    if shots:
        page.wait_for_timeout(1000)
        page.screenshot(path=f"{shots}/duplicates.png", full_page=True)
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(1000)
        page.screenshot(path=f"{shots}/duplicates-phone.png")
        page.set_viewport_size({"width": 1280, "height": 1000})
    keep.click()
    page.locator(f'.grid .tile:first-child .open[data-photo="{kept}"]').wait_for()
    page.close()
