"""Further hits: the route behind the grid, and scrolling and the viewer in a real Chromium."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
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

PHOTOS = 60


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("many")
    (base / "photos").mkdir()
    for number in range(PHOTOS):
        left, right = (number * 4, 40, 90), (255 - number * 4, 200, number)
        image = Image.new("RGB", (60, 40), left)
        image.paste(right, (30, 0, 60, 40))
        image.save(base / "photos" / f"{number:02}.png")
    with Library.open(base / "library", embedder="color_layout") as library:
        library.index([base / "photos"])
    return base / "library"


@pytest.fixture
def opened_many(many: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(many))
    yield session.library()
    session.close_libraries()


def grid(at: AppTest) -> dict[str, Any]:
    (found,) = [json.loads(one.proto.json) for one in at.get("bidi_component") if "vs_hits" in one.proto.id]
    return dict(found)


def test_batches_are_the_pages_of_one_search(opened_many: Library) -> None:
    first = opened_many.photos()[0].photo_id
    shown = grid(open_page("../pages/search.py", photo=str(first)))
    ids, more = [tile["id"] for tile in shown["photos"]], shown["more"]
    assert len(ids) == 24
    assert grid(open_page("../pages/search.py", photo=str(first)))["more"] == more  # nothing is drawn anew
    with TestClient(Starlette(routes=[*photo_routes()])) as client:
        while more is not None:
            batch = client.get("/" + more).json()
            ids, more = ids + [tile["id"] for tile in batch["photos"]], batch["more"]
            assert all(tile["similar"] and tile["note"] for tile in batch["photos"])
        assert client.get("/hits?offset=24").status_code == 404
        assert client.get("/hits?offset=24&photo=99999").status_code == 404
        assert client.get("/hits?offset=24&upload=0123&words=red").status_code == 404
        assert client.get("/" + shown["more"].replace("offset=24", "offset=x")).status_code == 404
    assert ids == [hit.photo.photo_id for hit in opened_many.similar(first, k=PHOTOS).hits]
    assert len(ids) == PHOTOS - 1


def test_batches_need_no_page_in_the_same_server(opened_many: Library) -> None:
    """They are asked of another copy of the app, or of one that was started again."""
    photos = opened_many.photos()
    first, second = photos[0].photo_id, photos[1].photo_id
    address = f"/hits?offset=12&k=12&photo={first}&less={second}x2&stacks=off&shape=landscape&alike=same"
    with TestClient(Starlette(routes=[*photo_routes()])) as client:
        batch = client.get(address).json()
    found = opened_many.search_examples([first], [(second, 2.0)], k=12, offset=12, stacks=False)
    assert [tile["id"] for tile in batch["photos"]] == [hit.photo.photo_id for hit in found.hits]
    assert {"offset=24", "k=12", f"less={second}x2", "alike=same"} <= set(re.split("[?&]", batch["more"]))


def test_another_order_keeps_its_pages(opened_many: Library) -> None:
    first = opened_many.photos()[0].photo_id
    at = open_page("../pages/search.py", photo=str(first), sort="name")
    assert grid(at)["more"] is None
    assert at.button(key="vs_page_More").label == "More"


@pytest.mark.browser
def test_scrolling_and_the_viewer_beyond_the_first_batch(
    many: Path, start_server: Callable[..., Any], chromium: Any
) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    with Library.open(many) as library:
        first = library.photos()[0].photo_id
        hits = library.similar(first, k=PHOTOS).hits
    server = start_server(many)
    page = chromium.new_page(viewport={"width": 1200, "height": 700})
    # A photo far down, opened by its address, has neighbours.
    page.goto(f"{server.url}/?photo={first}&open={hits[40].photo.photo_id}")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text(re.compile("^41 of "))).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_text(re.compile("^42 of "))).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    # Scrolling brings all of them, with scores.
    page.goto(f"{server.url}/?photo={first}")
    expect(page.locator(".tile").first).to_be_visible()
    page.mouse.move(600, 400)
    for _ in range(20):
        page.mouse.wheel(0, 3000)
        page.wait_for_timeout(150)
    expect(page.get_by_role("button", name=f"rank {PHOTOS - 1},")).to_be_visible()
    page.close()
