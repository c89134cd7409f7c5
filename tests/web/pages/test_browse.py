"""The Browse page: folders, dates and filters with counts; the lists behind it; and in a real Chromium."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from tests.helpers.app_pages import open_page
from vitmae_search.library import Library
from vitmae_search.web.server import session
from vitmae_search.web.server.routes import photo_routes

ODD = os.fsdecode(b"caf\xe9")
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def dated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    """150 photos: 100 of 2021 in trip/day, 50 of 2023 in `HOSTILE` and in a folder whose name is no UTF-8."""
    for number in range(150):
        folder = "trip/day" if number < 100 else HOSTILE if number < 140 else ODD
        (tmp_path / "photos" / folder).mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (30, 20), (number, 255 - number, (number * 7) % 255))
        exif = Image.Exif()
        exif[0x0110] = "Pixel 7" if number % 2 else "EOS"
        year = 2021 if number < 100 else 2023
        exif.get_ifd(0x8769)[0x9003] = f"{year}:{1 + number % 12:02}:03 10:00:{number % 60:02}"
        image.save(tmp_path / "photos" / folder / f"{number:03}.jpg", exif=exif)
    with Library.open(tmp_path / "library", embedder="color_layout") as library:
        library.index([tmp_path / "photos"])
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    yield session.library()
    session.close_libraries()


@pytest.fixture
def client(dated: Library) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=[*photo_routes()])) as client:
        yield client


def data(at: AppTest, key: str) -> dict[str, Any]:
    (found,) = [json.loads(one.proto.json) for one in at.get("bidi_component") if key in one.proto.id]
    return dict(found)


def said(at: AppTest) -> str:
    return unescape(" ".join(str(block.proto.body) for block in at.get("html")))


def test_the_first_photos_are_on_the_page_and_the_others_behind_an_address(
    dated: Library, client: TestClient
) -> None:
    at = open_page("../pages/browse.py", camera="pixel", sort="name")
    grid = data(at, "vs_photos")
    assert "75 photos" in said(at)
    assert grid["total"] == 75
    assert grid["more"] is None
    grid = data(open_page("../pages/browse.py"), "vs_photos")
    ids = [tile["id"] for tile in grid["photos"]]
    more = client.get("/" + grid["more"]).json()
    assert more["more"] is None
    ids += [tile["id"] for tile in more["photos"]]
    assert ids == [photo.photo_id for photo in dated.photos()]


def test_chips_say_what_is_on_and_how_it_is_cleared(dated: Library, tmp_path: Path) -> None:
    at = open_page(
        "../pages/browse.py",
        under="trip",
        after="2021-01-01",
        before="2021-12-31",
        camera="EOS",
        shape="landscape",
    )
    facets = {facet["title"]: facet for facet in data(at, "vs_bar")["facets"]}
    assert facets["Folder"]["text"] == "photos/trip"
    assert facets["Date"]["text"] == "2021"
    assert facets["Date"]["clear"] == ["after", "before"]
    assert facets["Camera"]["text"] == "EOS"
    assert facets["Shape"]["text"] == "Landscape"
    assert facets["Type"]["text"] is None
    assert data(at, "vs_bar")["clear"] == ["under", "camera", "after", "before", "shape"]
    assert data(open_page("../pages/browse.py"), "vs_bar")["clear"] == []


def test_a_folder_that_is_not_there_can_be_cleared(dated: Library) -> None:
    at = open_page("../pages/browse.py", under="nowhere")
    assert "The library has no photo in a folder nowhere" in said(at)
    assert data(at, "vs_bar")["clear"] == ["under"]


def test_folders_are_listed_level_by_level_with_all_that_is_below(client: TestClient, tmp_path: Path) -> None:
    photos = str(tmp_path / "photos")
    assert client.get("/counts/folder").json() == [[photos, "photos", 150, True, os.sep]]
    inside = client.get("/counts/folder", params={"inside": photos}).json()
    # The folder whose name an address cannot hold is in its parent's number only.
    assert inside == [
        [f"{photos}/{HOSTILE}", HOSTILE, 40, False, os.sep],
        [f"{photos}/trip", "trip", 100, True, os.sep],
    ]
    pixel = client.get("/counts/folder", params={"inside": photos, "camera": "pixel", "under": "trip"}).json()
    assert [row[2] for row in pixel] == [20, 50]


def test_counts_are_of_what_passes_the_other_filters(client: TestClient) -> None:
    months = client.get("/counts/month", params={"after": "2023-01-01", "camera": "eos"}).json()
    assert {month[:4] for month, _, _ in months} == {"2021", "2023"}
    assert sum(count for _, _, count in months) == 75
    assert client.get("/counts/camera", params={"after": "2023-01-01"}).json() == [
        ["EOS", "EOS", 25],
        ["Pixel 7", "Pixel 7", 25],
    ]
    assert client.get("/counts/orientation").json() == [["landscape", "Landscape", 150]]


def test_marks_are_chips_where_there_are_any(dated: Library, client: TestClient) -> None:
    def titles(at: AppTest) -> list[str]:
        return [facet["title"] for facet in data(at, "vs_bar")["facets"]]

    assert not {"Favourites", "Rating", "Album"} & set(titles(open_page("../pages/browse.py")))
    ids = [photo.photo_id for photo in dated.photos()]
    dated.mark(ids[:3], favourite=True, rating=4)
    dated.add_to_album("best <b>", ids[:2])
    at = open_page("../pages/browse.py", favourites="on", rating="3", album="best <b>")
    assert {"Favourites", "Rating", "Album"} < set(titles(at))
    assert data(at, "vs_photos")["total"] == 2
    assert [row[2] for row in client.get("/counts/rating").json()] == [3, 3, 3, 3, 0]
    assert client.get("/counts/album").json() == [["best <b>", "best <b>", 2]]
    assert client.get("/counts/favourite").json() == [["on", "Favourites only", 3]]


@pytest.mark.parametrize(
    "address",
    [
        "/counts/passwords",
        "/photos",
        "/photos?after_photo=x",
        "/photos?after_photo=-1",
        "/photos?after_photo=1&under=nowhere",
        "/photos?after_photo=1&library=00000000",
        "/counts/camera?library=00000000",
    ],
)
def test_what_is_no_list_is_not_found(client: TestClient, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.browser
def test_scrolling_filters_and_the_viewer_in_a_browser(
    dated: Library, start_server: Callable[..., Any], chromium: Any
) -> None:
    from playwright.sync_api import expect

    page = chromium.new_page(viewport={"width": 1600, "height": 900})
    page.set_default_timeout(30_000)
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(f"{start_server(dated.folder).url}/browse")
    tiles = page.get_by_label("Photos, newest first").locator(".tile")
    tiles.nth(119).scroll_into_view_if_needed()
    expect(tiles).to_have_count(150, timeout=30_000)

    # The viewer goes on beyond what was loaded at first.
    tiles.nth(119).locator(".open").click()
    dialog = page.get_by_role("dialog", name="Photo")
    expect(dialog.get_by_text("120 of 150")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_text("121 of 150")).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()

    # A folder from the tree at the side, a month from the list of the chip; each × takes its own away.
    rail = page.locator(".st-key-vs_rail")
    rail.get_by_role("button", name=f"{HOSTILE} 40").click()
    expect(page.get_by_text("40 photos")).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Date", exact=True).click()
    menu = page.get_by_role("dialog", name="Date")
    menu.get_by_role("button", name=re.compile("^May 2023: ")).click()
    expect(page.get_by_text("May 2023", exact=True)).to_be_visible(timeout=30_000)
    assert "after=2023-05-01&before=2023-05-31" in page.url
    page.get_by_role("button", name="Remove the filter May 2023").click()
    expect(page.get_by_text("40 photos")).to_be_visible(timeout=30_000)
    page.go_back()
    expect(page.get_by_text("May 2023", exact=True)).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Clear all").click()
    expect(page.get_by_text("150 photos")).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Newest first").click()
    page.get_by_role("button", name="By name").click()
    expect(page.get_by_label("Photos, by name").locator(".tile").first).to_contain_text(
        "100.jpg", timeout=30_000
    )

    # More like one of them is a search; Back comes to where it was.
    tiles = page.get_by_label("Photos, by name").locator(".tile")
    tiles.nth(119).scroll_into_view_if_needed()
    tiles.nth(149).scroll_into_view_if_needed()
    page.wait_for_function("() => history.state?.place?.count === 150")
    tiles.nth(149).locator(".open").click()
    page.keyboard.press("s")
    expect(page.get_by_role("button", name=re.compile("rank 1,"))).to_be_visible(timeout=30_000)
    page.go_back()
    expect(page.get_by_role("dialog", name="Photo")).to_be_visible(timeout=30_000)
    page.go_back()
    expect(tiles.nth(149)).to_be_in_viewport(timeout=30_000)
    assert dialogs == []
    page.close()
