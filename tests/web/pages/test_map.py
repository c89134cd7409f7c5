"""The Map page: its routes, what it says and offers, and in a real Chromium."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from io import StringIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from tests.helpers.app_pages import open_page
from tests.helpers.touch import stroke
from vitmae_search.library import Library
from vitmae_search.records import SearchFilter
from vitmae_search.web.server.map_routes import map_routes

ALL = "-50000.-50000_150000.-50000_150000.150000_-50000.150000"


PLACED_ALL = "0.5_0.5_1"  # what `data-placed` says once the thumbnails are where they belong with all in view


def middle_of_a_thumb(page: Any, placed: str) -> tuple[float, float]:
    """Where one of the thumbnails is, once they have been placed for this view."""
    expect = pytest.importorskip("playwright.sync_api").expect
    expect(page.locator(".map")).to_have_attribute("data-placed", placed)
    box = page.locator(".thumb").first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.fixture
def client(opened: Library) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=[*map_routes()])) as client:
        yield client


def said(at: AppTest) -> str:
    return unescape(" ".join(str(block.proto.body) for block in at.get("html")))


def links(at: AppTest) -> dict[str, str]:
    found = re.findall(r'<a class="vs-action" href="([^"]*)"[^>]*>([^<]*)</a>', said(at))
    return {text: href for href, text in found}


def test_points_are_those_of_the_library(opened: Library, client: TestClient) -> None:
    body = client.get("/map/points?map=pca&color=folder").content
    length = int(np.frombuffer(body[:4], "<u4")[0])
    header = json.loads(body[4 : 4 + length])
    count, at = header["count"], 4 + length
    shown = opened.map()
    assert (count, len(body)) == (len(shown), at + 9 * count)
    np.testing.assert_array_equal(np.frombuffer(body, "<u4", count, at), shown.photo_ids)
    places = np.frombuffer(body, "<u2", 2 * count, at + 4 * count).reshape(-1, 2) / 65535 * 2 - 0.5
    np.testing.assert_allclose(places, shown.coordinates, atol=2e-5)
    groups = np.frombuffer(body, np.uint8, count, at + 8 * count)
    assert groups.tolist() == opened.map_groups(shown, "folder").group_of.tolist()
    assert [entry["count"] for entry in header["legend"]] == np.bincount(groups).tolist()
    assert sum(cluster["count"] for cluster in header["clusters"]) == count
    tiles = client.get(f"/map/photos?ids={shown.photo_ids[0]},999999").json()["photos"]
    assert [tile["id"] for tile in tiles] == [shown.photo_ids[0]]


def test_an_area_is_exported_with_coordinates(opened: Library, client: TestClient) -> None:
    answer = client.get(f"/map/area.csv?area=pca_{ALL}")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(StringIO(answer.content.decode("utf-8"))))
    assert [int(row["photo_id"]) for row in rows] == opened.map().photo_ids.tolist()
    for wrong in ("", "pca_1.2", "umap_1.2_3.4_5.6", "pca_1.2_3.4_x", "tsne_1.2_3.4_5.6"):
        assert client.get(f"/map/area.csv?area={wrong}").status_code == 404


def test_the_selection_goes_on_to_browse_and_search(opened: Library) -> None:
    at = open_page("../pages/map.py", area=f"pca_{ALL}")
    assert f"{opened.count_photos()} selected" in said(at)
    found = links(at)
    query = parse_qs(urlsplit(found["Search among these"]).query)
    assert query["area"] == [f"pca_{ALL}"]
    assert opened.photo(int(query["photo"][0])) is not None
    assert found["Browse these"].startswith("./browse?")
    at = open_page("../pages/browse.py", area="pca_0.0_1.0_1.1")
    assert "Area of the map (0)" in str([one.proto.json for one in at.get("bidi_component")])
    assert "No photo passes" in said(at)


def test_a_selection_becomes_an_album(opened_copy: Library) -> None:
    at = open_page("../pages/map.py", area=f"pca_{ALL}")
    at.text_input(key="vs_map_album_new").set_value("from the map").run()
    at.button(key="vs_map_album_add").click().run()
    assert opened_copy.count_photos(SearchFilter(album="from the map")) == opened_copy.count_photos()


def test_an_area_of_a_map_that_is_not_there_says_so(opened: Library) -> None:
    area = f"tsne_{ALL}"
    assert "not there any more" in said(open_page("../pages/map.py", area=area))
    assert "not there any more" in said(open_page("../pages/browse.py", area=area))


def test_the_tsne_map_is_offered_until_it_was_made(opened_copy: Library) -> None:
    at = open_page("../pages/map.py", map="tsne")
    assert "was not made yet" in said(at)
    assert at.button(key="vs_map_make").label == "Make this map"
    if importlib.util.find_spec("openTSNE") is None:
        return
    opened_copy.make_map("tsne")
    at = open_page("../pages/map.py", map="tsne")
    assert "was not made yet" not in said(at)
    assert "those that are most like it" in said(at)


@pytest.mark.browser
@pytest.mark.parametrize("webgl", [True, False])
def test_moving_selecting_and_opening(
    webgl: bool, small: Any, start_server: Callable[..., Any], page: Any
) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    if not webgl:
        page.add_init_script(
            "const get = HTMLCanvasElement.prototype.getContext;"
            "HTMLCanvasElement.prototype.getContext = function (kind, ...more) {"
            "  return kind === 'webgl' ? null : get.call(this, kind, ...more); };"
        )
    with Library.open(small.folder) as library:
        count = len(library.map())
    server = start_server(small.folder)
    page.goto(f"{server.url}/map?color=folder")
    expect(page.locator(".map")).to_have_attribute("data-drawn", str(count))
    note = page.get_by_text("this browser has no WebGL")
    expect(note).to_be_hidden() if webgl else expect(note).to_be_visible()

    # Keys move and zoom; the address keeps the view, also after a reload.
    stage = page.get_by_role("application", name=f"Map of {count} photos")
    stage.press("+")
    stage.press("ArrowRight")
    page.wait_for_url(re.compile(r"at=0\.\d+_0\.5_1\.6"))
    page.reload()
    expect(page.locator(".map")).to_have_attribute("data-drawn", re.compile(r"\d+"))
    assert re.search(r"at=0\.\d+_0\.5_1\.6", page.url)
    stage.press("0")

    # A point is shown under the pointer, also after the view has moved beneath it, and opens.
    middle = middle_of_a_thumb(page, PLACED_ALL)
    page.mouse.move(*middle)
    card = page.locator(".card")
    expect(card.locator("img")).to_be_visible()
    stage.press("ArrowRight")
    expect(card).to_be_hidden()
    stage.press("ArrowLeft")
    expect(card.locator("img")).to_be_visible()
    page.mouse.click(*middle)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text(re.compile(r"^1 of "))).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_text(re.compile(r"^2 of "))).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()

    # A stroke around everything selects everything; Back takes it back.
    page.get_by_role("button", name="Draw around photos to select them").click()
    frame = page.locator(".plot").bounding_box()
    left, top = frame["x"] + 4, frame["y"] + 4
    right, bottom = left + frame["width"] - 8, top + frame["height"] - 8
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 9)):
        page.mouse.move(x, y, steps=5)
    page.mouse.up()
    expect(page.get_by_text(f"{count} selected")).to_be_visible()
    page.get_by_role("link", name="Browse these").click()
    expect(page.get_by_role("button", name="Remove the filter Area of the map")).to_be_visible()
    page.go_back()
    expect(page.get_by_text(f"{count} selected")).to_be_visible()
    page.get_by_role("button", name="None").click()
    expect(page.get_by_text(f"{count} selected")).to_be_hidden()

    # Clusters are reached by Tab.
    cluster = page.get_by_role("button", name=re.compile("^Cluster of")).first
    cluster.press("Enter")
    page.wait_for_url(re.compile("at="))


@pytest.mark.browser
def test_fingers_move_zoom_select_and_open(small: Any, start_server: Callable[..., Any], phone: Any) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    phone.goto(f"{start_server(small.folder).url}/map")
    expect(phone.locator(".thumb").first).to_be_visible()
    plot = phone.locator(".plot")
    plot.scroll_into_view_if_needed()
    area = plot.bounding_box()
    x, y = area["x"] + area["width"] / 2, area["y"] + area["height"] / 2

    def view() -> list[float]:
        return [float(value) for value in parse_qs(urlsplit(phone.url).query)["at"][0].split("_")]

    stroke(phone, [(x, y), (x - 60, y + 30)])
    phone.wait_for_url(re.compile("at="))
    left, top, zoom = view()
    assert (left > 0.55, top > 0.52, zoom) == (True, True, 1)
    stroke(phone, [(x - 30, y), (x - 90, y)], [(x + 30, y), (x + 90, y)])
    phone.wait_for_url(lambda url: f"_{zoom:g}" not in url[-3:])
    assert 2.5 < view()[2] < 3.5
    assert abs(view()[0] - left) < 0.05  # what is between the fingers stays there
    phone.get_by_role("button", name="All of it (0)").tap()
    phone.wait_for_url(lambda url: "at=" not in url)

    phone.touchscreen.tap(*middle_of_a_thumb(phone, PLACED_ALL))
    dialog = phone.get_by_role("dialog")
    expect(dialog.get_by_text(re.compile(r"^1 of "))).to_be_visible()
    dialog.get_by_role("button", name="More like this").tap()
    # A step back is a person's, who sees the page first: Streamlit adds a step for one that is not drawn yet.
    expect(phone.get_by_role("button", name=re.compile("rank 1,"))).to_be_visible(timeout=30_000)
    phone.go_back()
    expect(dialog).to_be_visible(timeout=30_000)
    phone.go_back()
    expect(dialog).to_be_hidden()

    lasso = phone.get_by_role("button", name="Draw around photos to select them")
    lasso.tap()
    expect(lasso).to_have_attribute("aria-pressed", "true")
    plot.scroll_into_view_if_needed()
    area = plot.bounding_box()
    left, top = area["x"] + 2, area["y"] + 2
    right, bottom = left + area["width"] - 4, min(top + area["height"] - 4, 840)
    stroke(phone, [(left, top), (right, top), (right, bottom), (left, bottom), (left, top + 9)])
    expect(phone.get_by_text(re.compile(r"^\d+ selected"))).to_be_visible()
    expect(lasso).to_have_attribute("aria-pressed", "false")
