"""A box on the query's picture: from the address to the hits, and drawn in a real Chromium."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from streamlit.testing.v1 import AppTest

from tests.helpers.app_pages import open_app
from tests.helpers.touch import stroke
from vitmae_search.library import Library


def part(at: AppTest, name: str) -> list[dict[str, Any]]:
    return [json.loads(one.proto.json) for one in at.get("bidi_component") if name in one.proto.id]


def test_the_address_has_the_box(opened: Library) -> None:
    first = opened.photos()[0].photo_id
    at = open_app(photo=str(first), part="0.5,0.25,0.5,0.5")
    found = opened.search_region(first, (0.5, 0.25, 0.5, 0.5), k=24)
    (grid,) = part(at, "vs_hits")
    assert [photo["id"] for photo in grid["photos"]] == [hit.photo.photo_id for hit in found.hits]
    (shown,) = part(at, "vs_region")
    assert (shown["box"], shown["searched"]) == ([0.5, 0.25, 0.5, 0.5], True)
    assert any("does not look at patches" in str(block.proto.body) for block in at.get("html"))
    at.button(key="vs_region_off").click().run()
    assert "part" not in at.query_params
    assert not part(at, "vs_region")
    at.button(key="vs_region_on").click().run()
    (shown,) = part(at, "vs_region")
    assert not shown["searched"]


@pytest.mark.parametrize("text", ["", "1,2", "a,b,c,d", "nan,0,1,1", "0,0,0,0"])
def test_what_is_no_box_is_the_whole_picture(opened: Library, text: str) -> None:
    first = opened.photos()[0].photo_id
    at = open_app(photo=str(first), part=text)
    (grid,) = part(at, "vs_hits")
    assert [p["id"] for p in grid["photos"]] == [h.photo.photo_id for h in opened.similar(first, k=24).hits]


# Keeps each place at which the button was on the screen, from the first time that it was drawn.
WATCH_BUTTON = """
window.places = [];
(function look() {
  const top = document.querySelector(".st-key-vs_region_on")?.getBoundingClientRect().top;
  if (top && places.at(-1) !== Math.round(top)) places.push(Math.round(top));
  requestAnimationFrame(look);
})();
"""


@pytest.mark.browser
def test_a_box_is_drawn_and_moved(small: Any, start_server: Callable[..., Any], chromium: Any) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    with Library.open(small.folder) as library:
        coffee = next(p.photo_id for p in library.photos() if p.path.endswith("coffee.jpg"))
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(30_000)
    page.add_init_script(WATCH_BUTTON)
    page.goto(f"{start_server(small.folder).url}/?photo={coffee}")
    expect(page.get_by_role("list", name="Search results")).to_be_visible()
    places = page.evaluate("places")
    assert len(places) == 1, f"the controls moved while the results came: {places}"
    page.get_by_role("button", name="Part of it").click()
    picture = page.get_by_role("img", name="The picture that is searched with")
    expect(picture).to_be_visible()
    picture.evaluate("image => image.decode()")
    page.wait_for_timeout(500)  # until the page has settled below it
    area = picture.bounding_box()
    page.mouse.move(area["x"] + 0.1 * area["width"], area["y"] + 0.2 * area["height"])
    page.mouse.down()
    page.mouse.move(area["x"] + 0.4 * area["width"], area["y"] + 0.5 * area["height"], steps=5)
    page.mouse.move(area["x"] + 0.6 * area["width"], area["y"] + 0.8 * area["height"], steps=5)
    page.mouse.up()
    page.wait_for_url(re.compile(r"part=0\.(1|09\d*)%2C0\.(2|19\d*)%2C0\.(5|49\d*)"))
    expect(page.get_by_text("does not look at patches")).to_be_visible()
    before = page.url
    box = page.get_by_role("group", name="The part to search for")
    box.focus()
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowUp", "Enter"):
        box.press(key)
    page.wait_for_url(lambda url: url != before)
    page.go_back()
    page.wait_for_url(before)
    page.get_by_role("button", name="Whole picture").click()
    expect(picture).to_be_hidden()
    page.close()


@pytest.mark.browser
def test_a_finger_draws_moves_and_resizes_and_a_hit_opens_with_its_part(
    small: Any, tmp_path: Path, start_server: Callable[..., Any], phone: Any
) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    with Library.open(tmp_path / "parts") as library:
        for name in ("astronaut", "chelsea", "coffee"):
            (tmp_path / f"{name}.jpg").write_bytes((small.photos / f"{name}.jpg").read_bytes())
        library.index(tmp_path)
        cat = next(p.photo_id for p in library.photos() if p.path.endswith("chelsea.jpg"))
        found = library.search_region(cat, (0.1, 0.1, 0.5, 0.6)).hits[0]
    phone.goto(f"{start_server(tmp_path / 'parts').url}/?photo={cat}&part=choose")
    picture = phone.get_by_role("img", name="The picture that is searched with")
    picture.evaluate("image => image.decode()")
    phone.wait_for_timeout(500)  # until the page has settled below it
    area = picture.bounding_box()

    def at(x: float, y: float) -> tuple[float, float]:
        return (area["x"] + x * area["width"], area["y"] + y * area["height"])

    def part() -> list[float]:
        return [float(value) for value in parse_qs(urlsplit(phone.url).query)["part"][0].split(",")]

    stroke(phone, [at(0.3, 0.3), at(0.1, 0.3)], [at(0.6, 0.6), at(0.9, 0.6)])  # a pinch draws nothing
    stroke(phone, [at(0.1, 0.1), at(0.6, 0.7)])
    phone.wait_for_url(re.compile("part=0"))
    assert part() == pytest.approx([0.1, 0.1, 0.5, 0.6], abs=0.02)
    hit = phone.get_by_role("button", name=re.compile("rank 1,"))
    expect(hit.locator("svg.part rect").first).to_have_attribute("width", re.compile(r"\d"))
    hit.tap()
    shown = phone.get_by_role("dialog").locator("svg.part")
    expect(shown).to_be_visible()
    assert found.box is not None
    width = float(shown.get_attribute("viewBox").split()[2])
    left = float(shown.locator("rect").first.get_attribute("x"))
    assert left / width == pytest.approx(found.box.left, abs=0.05)
    phone.go_back()
    expect(shown).to_be_hidden()

    area = picture.bounding_box()
    for path, expected in (
        ([at(0.3, 0.3), at(0.5, 0.5)], [0.3, 0.3, 0.5, 0.6]),  # by what is inside it
        ([at(0.8, 0.9), at(0.6, 0.6)], [0.3, 0.3, 0.3, 0.3]),  # by its corner
    ):
        before = phone.url
        stroke(phone, path)
        phone.wait_for_url(lambda url, before=before: url != before)
        assert part() == pytest.approx(expected, abs=0.03)
