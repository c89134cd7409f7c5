"""Filters of lenses, places and sizes: in the address, as chips, behind the map; and the map in Chromium."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from starlette.applications import Starlette
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from tests.helpers.app_pages import open_page
from vitmae_search.library import Library
from vitmae_search.records import GeoBox, GeoCircle, SavedSearch
from vitmae_search.web.components.filter_parameters import place_words, read_filters, size_words
from vitmae_search.web.components.saved_search import address
from vitmae_search.web.server import session
from vitmae_search.web.server.routes import photo_routes


@pytest.fixture
def placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    """Twelve photos from Vienna to the east and across the date line, each 20° on; and one of nowhere."""
    (tmp_path / "photos" / "near").mkdir(parents=True)
    for number in range(13):
        exif = Image.Exif()
        exif.get_ifd(IFD.Exif)[Base.LensModel] = "Wide" if number % 3 else "Tele <b>"
        longitude = (16 + 20 * number + 180) % 360 - 180
        if number < 12:
            gps = {GPS.GPSLatitudeRef: "N", GPS.GPSLatitude: (48.0, 12.0, 0.0)}
            side = "E" if longitude >= 0 else "W"
            gps |= {GPS.GPSLongitudeRef: side, GPS.GPSLongitude: (float(abs(longitude)), 0.0, 0.0)}
            exif.get_ifd(IFD.GPSInfo).update(gps)
        image = Image.new("RGB", (30, 20), (20 * number, 255 - 9 * number, 90))
        folder = tmp_path / "photos" / ("near" if number in (10, 11) else "")
        image.save(folder / f"{number:02}.jpg", exif=exif)
    with Library.open(tmp_path / "library", embedder="color_layout") as library:
        library.index([tmp_path / "photos"])
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    yield session.library()
    session.close_libraries()


def facets(at: AppTest) -> dict[str, Any]:
    (bar,) = [json.loads(one.proto.json) for one in at.get("bidi_component") if "vs_bar" in one.proto.id]
    return {facet["title"]: facet for facet in bar["facets"]}


def test_the_address_says_places_lenses_and_sizes(opened: Library) -> None:
    where = read_filters({"place": "47,5,55,15;48.2,16.4,10;on", "lens": " wide ", "size": "1-5"}).where
    assert (where.box, where.near) == (GeoBox(47, 5, 55, 15), GeoCircle(48.2, 16.4, 10))
    assert (where.has_place, where.lens, where.min_bytes, where.max_bytes) == (
        True,
        "wide",
        10**6,
        5 * 10**6 - 1,
    )
    assert (
        place_words(where) == "47° N to 55° N, 5° E to 15° E; within 10 km of 48.2° N, 16.4° E; with a place"
    )
    assert size_words(where) == "1 to 5 MB"
    again = address(SavedSearch("x", where=where)).partition("?")[2]
    assert "place=47%2C5%2C55%2C15%3B48.2%2C16.4%2C10%3Bon&size=1-5" in again


@pytest.mark.parametrize("place", ["", "here", "1,2", "1,2,3,4,5", "91,0,0,0", "1,2,-3", "1,2,x", ";;", "ON"])
def test_what_is_no_place_is_no_filter(opened: Library, place: str) -> None:
    assert read_filters({"place": place, "size": "big"}).where.empty


def test_chips_and_counts(placed: Library) -> None:
    at = open_page("../pages/browse.py", place="40,90,60,-170", lens="tele", size="-1")
    shown = facets(at)
    assert (shown["Place"]["text"], shown["Lens"]["text"]) == ("40° N to 60° N, 90° E to 170° W", "tele")
    assert shown["Size"]["text"] == "less than 1 MB"
    with TestClient(Starlette(routes=[*photo_routes()])) as client:
        assert client.get("/counts/lens").json() == [["Wide", "Wide", 8], ["Tele <b>", "Tele <b>", 5]]
        assert client.get("/counts/place", params={"place": "off", "lens": "tele"}).json() == [
            ["on", "With a place", 4],
            ["off", "Without a place", 1],
        ]
        assert client.get("/counts/size").json() == [["0-1", "Up to 1 MB", 13]]
        around = client.get("/places", params={"place": "40,90,60,-170", "view": "0,0,90,30"}).json()
        assert around == {"count": 5, "places": [[48.2, 16.0, 1]]}
        assert client.get("/places", params={"view": "0,0,90"}).status_code == 404
        land = client.get("/land").json()
        assert "Natural Earth" in land["source"]
        assert "public domain" in land["source"]
        assert client.get("/details/1").json()["place"] == [48.2, 16.0]


def test_no_chips_where_nothing_has_a_place(opened: Library) -> None:
    assert {"Lens", "Place"}.isdisjoint(facets(open_page("../pages/browse.py")))


@pytest.mark.browser
def test_a_box_is_drawn_typed_and_removed_in_a_browser(
    placed: Library, start_server: Callable[..., Any], chromium: Any
) -> None:
    from playwright.sync_api import expect

    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(30_000)
    server = start_server(placed.folder)
    near = placed.folder.parent / "photos" / "near"
    page.goto(f"{server.url}/browse?under={near}")
    page.get_by_role("button", name="Place", exact=True).click()
    menu = page.get_by_role("dialog", name="Place")
    # The map begins where the photos are: two, at 144° and 124° west.
    expect(menu.get_by_role("application")).to_have_attribute("viewBox", "300 338 320 160")
    expect(menu.locator(".dot")).to_have_count(2)
    page.goto(f"{server.url}/browse")
    page.get_by_role("button", name="Place", exact=True).click()
    expect(menu.get_by_role("button", name="Without a place 1")).to_be_visible()
    surface = menu.get_by_role("application")
    expect(menu.locator(".dot")).to_have_count(12)

    # The mouse draws a box from 0° to 60° east; the fields say so, and how many photos are in it.
    place = surface.bounding_box()

    def at(longitude: float, latitude: float) -> tuple[float, float]:
        return (
            place["x"] + (longitude + 180) / 360 * place["width"],
            place["y"] + (90 - latitude) / 180 * place["height"],
        )

    page.mouse.move(*at(0, 70))
    page.mouse.down()
    page.mouse.move(*at(30, 40))
    page.mouse.move(*at(60, 30))
    page.mouse.up()
    expect(menu.get_by_text("3 photos", exact=True)).to_be_visible()
    assert abs(float(menu.get_by_label("East", exact=True).input_value()) - 60) < 1
    menu.get_by_role("button", name="Show these photos").first.click()
    expect(page.get_by_text("3 photos", exact=True)).to_be_visible(timeout=30_000)

    # Typed with the keyboard, a box goes across the date line.
    page.get_by_role("button", name="° N to").first.click()
    menu = page.get_by_role("dialog", name="Place")
    for name, value in {"South": "40", "West": "150", "North": "60", "East": "-150"}.items():
        menu.get_by_label(name, exact=True).fill(value)
    page.keyboard.press("Enter")
    expect(page.get_by_text("3 photos", exact=True)).to_be_visible(timeout=30_000)
    page.wait_for_url("**place=40%2C150%2C60%2C-150**")
    page.get_by_role("button", name="Remove the filter 40° N to 60° N, 150° E to 150° W").click()
    expect(page.get_by_text("13 photos")).to_be_visible(timeout=30_000)

    # From the details of a photo to those near it.
    page.get_by_label("Photos, newest first").locator(".tile .open").nth(4).click()
    page.keyboard.press("i")
    page.get_by_role("link", name="Photos within 10 km").click()
    expect(page.get_by_text("1 photo", exact=True)).to_be_visible(timeout=30_000)
    page.close()
