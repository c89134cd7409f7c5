"""The Albums page: many photos are marked at once, and it can be undone."""

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
from vitmae_search.catalog.writer_lock import WriterLock
from vitmae_search.library import Library
from vitmae_search.records import Marks, SavedSearch, SearchFilter


def shown(at: AppTest) -> list[int]:
    grids = [json.loads(g.proto.json) for g in at.get("bidi_component") if "vs_album_photos" in g.proto.id]
    return [photo["id"] for photo in grids[0]["photos"]]


def said(at: AppTest) -> str:
    return unescape(" ".join(str(block.proto.body) for block in at.get("html")))


def test_all_on_the_page_are_marked_and_it_is_undone(opened_copy: Library) -> None:
    at = open_page("../pages/albums.py")
    at.toggle(key="vs_selecting").set_value(True).run()
    at.button(key="vs_select_all").click().run()
    at.button(key="vs_favourite").click().run()
    at.button(key="vs_rate_4").click().run()
    ids = [photo.photo_id for photo in opened_copy.photos()]
    assert {opened_copy.marks(photo_id) for photo_id in ids} == {Marks(favourite=True, rating=4)}
    assert f"Last change: {len(ids)} photos: rating 4." in said(at)
    undo_button(at).click().run()
    assert {opened_copy.marks(photo_id) for photo_id in ids} == {Marks(favourite=True)}
    undo_button(at).click().run()
    assert undo_button(at).disabled


@pytest.mark.parametrize("page", ["albums", "duplicates"])
def test_undo_takes_back_the_change_that_the_page_names(opened_copy: Library, page: str) -> None:
    first, second, *_ = (photo.photo_id for photo in opened_copy.photos())
    opened_copy.mark([first], favourite=True)
    at = open_page(f"../pages/{page}.py")
    if page == "albums":
        at.toggle(key="vs_selecting").set_value(True).run()
    assert "Last change: 1 photo: favourite." in said(at)
    opened_copy.mark([second], rating=2)  # by somebody else
    undo_button(at).click().run()
    assert (
        "Nothing was undone: after this change (1 photo: favourite) another one was made: 1 photo: rating 2."
        in said(at)
    )
    assert (opened_copy.marks(first).favourite, opened_copy.marks(second).rating) == (True, 2)
    assert "Last change: 1 photo: rating 2." in said(at)
    undo_button(at).click().run()
    assert (opened_copy.marks(first).favourite, opened_copy.marks(second).rating) == (True, 0)


def test_filters_are_in_the_address(opened_copy: Library) -> None:
    first, second, *_ = (photo.photo_id for photo in opened_copy.photos())
    opened_copy.mark([first], favourite=True, rating=5)
    opened_copy.add_to_album("<b>*x*", [second])
    at = open_page("../pages/albums.py")
    at.toggle(key="vs_only_favourites").set_value(True).run()
    assert (at.query_params["favourites"], shown(at)) == ("on", [first])
    assert shown(open_page("../pages/albums.py", rating="5")) == [first]
    assert shown(open_page("../pages/albums.py", album="<b>*x*")) == [second]
    assert len(shown(open_page("../pages/albums.py", album="none", rating="9"))) == opened_copy.count_photos()
    assert "<b>*x*, 1 photos" in said(open_page("../pages/albums.py"))


def test_names_that_no_page_can_show(opened_copy: Library) -> None:
    first, *_ = (photo.photo_id for photo in opened_copy.photos())
    opened_copy.add_to_album("ab", [first])
    opened_copy.add_to_album("a\0b\x9b\n", [first])
    assert opened_copy.albums() == {"ab": 1, "a b": 1}
    opened_copy.undo()
    assert opened_copy.albums() == {"ab": 1}
    folder = os.fsdecode(b"/no utf-8 \xff")
    opened_copy.save_search(SavedSearch("odd", (), (), SearchFilter(under=folder)))
    assert "under=%2Fno+utf-8+%FF" in said(open_page("../pages/albums.py"))


def test_photos_go_into_an_album_and_out_of_it(opened_copy: Library) -> None:
    at = open_page("../pages/albums.py")
    at.toggle(key="vs_selecting").set_value(True).run()
    at.button(key="vs_select_all").click().run()
    at.text_input(key="vs_album_new").set_value("trip").run()
    at.button(key="vs_album_add").click().run()
    assert opened_copy.albums() == {"trip": opened_copy.count_photos()}
    at.selectbox(key="vs_album").set_value("trip").run()
    at.button(key="vs_album_out").click().run()
    assert opened_copy.albums() == {"trip": 0}
    at.button(key="vs_delete_trip").click().run()
    assert opened_copy.albums() == {}


def test_a_name_counts_that_was_typed_just_before_the_click(opened_copy: Library) -> None:
    at = open_page("../pages/albums.py")
    at.toggle(key="vs_selecting").set_value(True).run()
    at.button(key="vs_select_all").click().run()
    for name in ("one", "two"):
        at.text_input(key="vs_album_new").set_value(name)
        at.button(key="vs_album_add").click().run()
    count = opened_copy.count_photos()
    assert opened_copy.albums() == {"one": count, "two": count}
    at.text_input(key="vs_rename_one").set_value("three")
    at.button(key="vs_rename_now_one").click().run()
    assert opened_copy.albums() == {"three": count, "two": count}
    at = open_page("../pages/search.py", photo=str(opened_copy.photos()[0].photo_id))
    at.text_input(key="vs_save_name").set_value("quick")
    at.button(key="vs_save").click().run()
    assert [search.name for search in opened_copy.saved_searches()] == ["quick"]


def test_an_album_that_was_renamed_meanwhile_is_not_made_again(opened_copy: Library) -> None:
    opened_copy.add_to_album("trip", [])
    at = open_page("../pages/albums.py")
    at.toggle(key="vs_selecting").set_value(True).run()
    at.button(key="vs_select_all").click().run()
    at.selectbox(key="vs_album_known").set_value("trip")
    opened_copy.rename_album("trip", "Norway")  # by somebody else
    at.button(key="vs_album_add").click().run()
    assert "There is no album 'trip'; there are: Norway." in said(at)
    assert opened_copy.albums() == {"Norway": 0}


def test_a_library_that_is_being_written_says_so(opened_copy: Library) -> None:
    at = open_page("../pages/albums.py")
    at.toggle(key="vs_selecting").set_value(True).run()
    at.button(key="vs_select_all").click().run()
    lock = WriterLock(opened_copy.folder)
    lock.acquire(0)
    try:
        at.button(key="vs_favourite").click().run(timeout=60)
    finally:
        lock.release()
    assert "writ" in said(at)
    assert opened_copy.count_photos(SearchFilter(favourite=True)) == 0


def test_a_search_is_saved_and_is_an_address(opened_copy: Library) -> None:
    first, second, *_ = (photo.photo_id for photo in opened_copy.photos())
    at = open_page("../pages/search.py", photo=str(first), more=f"{second}x2")
    at.text_input(key="vs_save_name").set_value("two").run()
    at.button(key="vs_save").click().run()
    assert opened_copy.saved_searches() == [SavedSearch("two", ((first, 1.0), (second, 2.0)))]
    assert f"photo={first}&more={second}x2" in said(open_page("../pages/albums.py"))


@pytest.mark.browser
def test_the_page_in_a_browser(
    opened_copy: Library, small: Any, start_server: Callable[..., Any], chromium: Any, tmp_path: Path
) -> None:
    ids = [photo.photo_id for photo in opened_copy.photos()]
    opened_copy.add_to_album("Some", ids[:5])
    opened_copy.save_search(SavedSearch("like this", ((ids[0], 1.0),)))
    shutil.copytree(opened_copy.folder, tmp_path / "served")
    server = start_server(tmp_path / "served")
    page = chromium.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(f"{server.url}/albums")
    page.get_by_text("Select", exact=True).click()
    tiles = page.locator(".grid .open[aria-pressed]")
    tiles.first.wait_for()
    tiles.nth(0).click()
    page.get_by_text("1 selected").wait_for()
    page.get_by_role("button", name="Favourite", exact=True).click()
    page.get_by_text("Last change: 1 photo: favourite.").wait_for()
    shots = os.environ.get("SCREENSHOTS")
    if shots:
        page.wait_for_timeout(1000)
        page.screenshot(path=f"{shots}/albums.png", full_page=True)
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(1000)
        page.screenshot(path=f"{shots}/albums-phone.png")
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.goto(f"{server.url}/browse")
    page.get_by_text("Select", exact=True).click()
    tiles.first.wait_for()
    tiles.nth(1).click()
    page.get_by_text("1 selected").wait_for()
    page.locator(".tile.selected").first.wait_for()
    if shots:
        page.wait_for_timeout(1000)
        page.screenshot(path=f"{shots}/browse-select.png")
    page.goto(f"{server.url}/albums")
    page.get_by_text("like this").click()
    page.wait_for_url(f"**/?photo={ids[0]}*")
    page.close()


def test_photos_are_selected_while_browsing(opened_copy: Library) -> None:
    at = open_page("../pages/browse.py")
    at.toggle(key="vs_selecting").set_value(True).run()
    at.button(key="vs_select_all").click().run()
    at.button(key="vs_favourite").click().run()
    assert opened_copy.count_photos(SearchFilter(favourite=True)) == opened_copy.count_photos()
    assert not at.exception
