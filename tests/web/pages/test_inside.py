"""The pages Inside and Match: pointing at a square colors others, and the address has the whole view."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers.app_pages import open_page
from tests.library.test_named_models import make_model
from vitmae_search.library import Library
from vitmae_search.web.server import session

INSIDE, MATCH = "../pages/inside.py", "../pages/match.py"


@pytest.fixture(scope="module")
def seen(real_photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of three photos and a mirror image, in the bundled model's space."""
    folder = tmp_path_factory.mktemp("seen")
    photos = folder / "photos"
    photos.mkdir()
    for name in ("astronaut", "chelsea", "coffee"):
        with Image.open(real_photos[name]) as picture:
            image = picture.convert("RGB").resize((256, 256))
        image.save(photos / f"{name}.png")
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(photos / "mirrored.png")
    with Library.open(folder / "library") as library:
        assert library.index(photos).added == 4
    return folder / "library"


@pytest.fixture
def ids(seen: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The ids of its photos, by name; it is the app's own library."""
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(seen))
    yield {Path(photo.path).stem: str(photo.photo_id) for photo in session.library().photos()}
    session.close_libraries()


def component(at: Any, key: str) -> dict[str, Any]:
    (found,) = (json.loads(each.proto.json) for each in at.get("bidi_component") if key in each.proto.id)
    return dict(found)


def html(at: Any) -> str:
    return " ".join(str(block.proto.body) for block in at.get("html"))


def test_without_a_picture_both_pages_say_what_they_do(ids: dict[str, str]) -> None:
    assert "compares each with all others" in html(open_page(INSIDE))
    assert "Search for a photo" in html(open_page(MATCH))


def test_attention_of_a_photo(ids: dict[str, str]) -> None:
    at = open_page(INSIDE, photo=ids["chelsea"])
    shown = component(at, "vs_inside")
    assert (shown["sides"][0]["rows"], len(shown["sides"][0]["map"])) == (8, 64)
    assert "8 × 8 squares, 12 layers of 3 heads" in html(at)
    head = component(open_page(INSIDE, photo=ids["chelsea"], head="2", layer="5"), "vs_inside")
    assert head["matrix"] != shown["matrix"]


def test_colors_are_of_the_photo_and_the_most_alike_ones(ids: dict[str, str]) -> None:
    at = open_page(INSIDE, photo=ids["coffee"], view="Colors", layer="6")
    assert html(at).count("its squares in the model's colors".replace("'", "&#x27;")) == 4
    assert "mirrored.png" in html(at)


@pytest.mark.parametrize("strange", ["99", "-1", "x", "9" * 50])
def test_an_address_with_another_layer_shows_one_that_there_is(ids: dict[str, str], strange: str) -> None:
    at = open_page(INSIDE, photo=ids["coffee"], view="Alike", layer=strange, patch="7-9999")
    assert at.slider[0].value == 12
    assert component(at, "vs_inside")["kept"] == "7-9999"


def test_a_photo_and_its_mirror_image_correspond(ids: dict[str, str]) -> None:
    at = open_page(MATCH, photo=ids["coffee"], hit=ids["mirrored"])
    shown = component(at, "vs_match")
    right = sum(own % 8 == 7 - other % 8 and own // 8 == other // 8 for own, other in shown["pairs"])
    assert right >= 8, shown["pairs"]
    counted = open_page(MATCH, photo=ids["coffee"], hit=ids["mirrored"], view="What counts")
    shares = [sum(side["map"]) for side in component(counted, "vs_match")["sides"]]
    assert f"{shares[0]:+.3f} of its squares" in html(counted)
    assert f"{shares[1]:+.3f} of its squares" in html(counted)


def test_a_plugin_that_shows_nothing_says_so(opened: Library) -> None:
    one, two = (str(photo.photo_id) for photo in opened.photos()[:2])
    at = open_page(MATCH, photo=one, hit=two)
    assert "does not show its inside" in html(at)


@pytest.mark.parametrize("strange", ["99", "x"])
def test_an_address_with_another_layer_explains_with_the_last(ids: dict[str, str], strange: str) -> None:
    at = open_page(MATCH, photo=ids["coffee"], hit=ids["mirrored"], layer=strange)
    assert component(at, "vs_match")["unit"] == "cosine"


def test_another_model_is_named_by_the_address(ids: dict[str, str], tmp_path: Path) -> None:
    model = str(make_model(tmp_path / "mine"))
    at = open_page(INSIDE, photo=ids["coffee"], model=model)
    assert "3 × 3 squares, 2 layers of 2 heads" in html(at)
    at.selectbox(key="vs_model").set_value("The library's model").run()
    assert "8 × 8 squares" in html(at)
    shown = component(open_page(MATCH, photo=ids["coffee"], hit=ids["mirrored"], model=model), "vs_match")
    assert len(shown["sides"]) == 2
    assert shown["sides"][0]["rows"] == 3
    at = open_page("../pages/reconstructions.py", photo=ids["coffee"], model=model)
    assert "48 × 48 pixels, in 3 × 3 patches" in html(at)


@pytest.mark.parametrize("strange", ["facebook/vit-mae-base", "../x", "/no/such/folder", "hub:a/b"])
def test_an_address_fetches_no_model(ids: dict[str, str], strange: str) -> None:
    at = open_page(INSIDE, photo=ids["coffee"], model=strange)
    assert "is no folder or file on this machine" in html(at)
    assert "8 × 8 squares" in html(at)


@pytest.mark.browser
def test_from_a_hit_to_why_it_matched(seen: Path, start_server: Callable[..., Any], chromium: Any) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(30_000)
    page.goto(start_server(seen).url)
    page.get_by_role("button", name="coffee.png", exact=True).click()
    page.get_by_role("button", name=re.compile("mirrored.png, rank")).first.click()
    page.get_by_role("dialog").get_by_role("button", name="Why did this match?").click()
    expect(page.get_by_role("heading", name="Why did this match?")).to_be_visible()
    first, second = (page.locator("figure").nth(number) for number in (0, 1))
    first.locator(".cell").nth(8 * 3 + 2).hover()
    expect(page.get_by_text("Square in row 4, column 3: most in row")).to_be_visible()
    expect(second.locator(".frame")).to_have_class(re.compile("mapped"))
    first.locator(".cell").nth(8 * 3 + 2).click()
    page.wait_for_url(lambda url: "patch=0-26" in url)
    page.reload()
    expect(page.get_by_text("Square in row 4, column 3")).to_be_visible()
    page.get_by_text("What counts").click()
    expect(page.get_by_text("added to the score")).to_be_visible()
    assert page.locator(".lines line").count() == 0
    page.close()


@pytest.mark.parametrize(
    ("view", "said"),
    [
        ("Ever more hidden", "An animation from"),
        ("Where it is unsure", "The mean of 16 guesses"),
        ("What matters", "How much each visible square matters"),
    ],
)
def test_what_many_reconstructions_say(ids: dict[str, str], view: str, said: str) -> None:
    at = open_page("../pages/reconstructions.py", photo=ids["coffee"], view=view, pattern="grid")
    assert f'alt="{said}' in html(at)


def test_a_photo_among_its_neighbours(ids: dict[str, str], seen: Path) -> None:
    at = open_page(INSIDE, photo=ids["coffee"], view="Neighbours", k="5")
    with Library.open(seen) as library:
        found = library.neighbourhood(int(ids["coffee"]), k=5)
    shown = component(at, "vs_neighbours")["photos"]
    assert [tile["name"] for tile in shown] == [Path(each.photo.path).name for each in found.neighbours]
    assert shown[0]["note"] == f"{1 - found.distances[0]:.3f}"
    having = [tile["name"] for tile in component(at, "vs_reverse")["photos"]]
    assert having == [Path(each.photo.path).name for each in found.reverse]
    assert f"{found.occurrences} photos; usual are" in html(at)
    changed = open_page(INSIDE, photo=ids["coffee"], view="Neighbours", before="features")
    assert "Neighbours that stay" in html(changed)
    assert "Changed copies that find it" in html(changed)
    assert component(changed, "vs_before")["photos"][0]["note"].endswith("both")


def test_all_photos_at_once_lead_to_a_hub(ids: dict[str, str]) -> None:
    at = open_page(INSIDE, view="All photos", before="whitened")
    assert "Effective dimension" in html(at)
    assert "space 1, whitened" in html(at)
    notes = {tile["note"] for tile in component(at, "vs_hubs")["photos"]}
    assert notes == {"of 3 photos"}  # of four, each is a neighbour of all others


def test_neighbours_need_no_model_that_shows_its_inside(opened: Library) -> None:
    photo = opened.photos()[0]
    at = open_page(INSIDE, photo=str(photo.photo_id), view="Neighbours")
    assert len(component(at, "vs_neighbours")["photos"]) == 10


@pytest.mark.parametrize("strange", ["99", "x", "9" * 30])
def test_an_address_of_a_space_that_is_gone_shows_the_current_one(ids: dict[str, str], strange: str) -> None:
    at = open_page(INSIDE, photo=ids["coffee"], view="Neighbours", space=strange, before=strange, k=strange)
    assert component(at, "vs_neighbours")["explained"] == 2


@pytest.mark.browser
def test_by_touch_and_by_keyboard(seen: Path, start_server: Callable[..., Any], chromium: Any) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    with Library.open(seen) as library:
        ids = {Path(photo.path).stem: photo.photo_id for photo in library.photos()}
    phone = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = phone.new_page()
    page.set_default_timeout(30_000)
    url = start_server(seen).url
    page.goto(f"{url}/inside?photo={ids['coffee']}")
    page.locator(".cell").nth(26).tap()
    page.wait_for_url(lambda url: "patch=0-26" in url)
    expect(page.get_by_text("Square in row 4, column 3")).to_be_visible()
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    page.get_by_text("How this is computed").scroll_into_view_if_needed()
    # A finger that is drawn over the picture shows one square after the other.
    boxes = [page.locator(".cell").nth(number).bounding_box() for number in (9, 54)]
    places = [{"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2} for box in boxes]
    touch = phone.new_cdp_session(page)
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": places[:1]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": places[1:]})
    expect(page.get_by_text("Square in row 7, column 7")).to_be_visible()
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(page.get_by_text("Square in row 4, column 3")).to_be_visible()
    page.wait_for_timeout(600)  # a tap sooner after another touch would be a double tap
    with page.expect_download() as saved:
        page.get_by_role("button", name="Numbers (JSON)").click()
    assert len(json.loads(Path(saved.value.path()).read_text())["attention"]) == 64
    with page.expect_download() as saved:
        page.get_by_role("button", name="Figure (PNG)").click()
    assert Path(saved.value.path()).read_bytes().startswith(b"\x89PNG")
    page.get_by_text("Neighbours", exact=True).tap()
    page.get_by_role("button", name=re.compile("mirrored.png, rank")).first.tap()
    page.get_by_role("dialog").get_by_role("button", name="Why did this match?").tap()
    page.wait_for_url(lambda url: "/match?" in url)
    page.locator("figure").nth(1).locator(".cell").nth(10).tap()
    page.wait_for_url(lambda url: "patch=1-10" in url)
    cell = page.locator("figure").nth(0).locator(".cell").first
    cell.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "patch=0-8" in url)
    phone.close()


def test_a_part_is_explained_as_it_was_searched_for(ids: dict[str, str], seen: Path) -> None:
    at = open_page(
        MATCH, photo=ids["coffee"], hit=ids["mirrored"], part="0.5,0.25,0.4,0.5", view="What counts"
    )
    sides = component(at, "vs_match")["sides"]
    with Library.open(seen) as library:
        found = library.search_region(int(ids["coffee"]), (0.5, 0.25, 0.4, 0.5))
    score = next(hit.score for hit in found.hits if str(hit.photo.photo_id) == ids["mirrored"])
    assert [sum(side["map"]) for side in sides] == pytest.approx([score, score], abs=1e-3)
    assert f"{score:.3f}: " in html(at)
    corresponding = open_page(MATCH, photo=ids["coffee"], hit=ids["mirrored"], part="0.5,0.25,0.4,0.5")
    assert component(corresponding, "vs_match")["pairs"]
    assert not corresponding.slider


def test_hits_of_a_part_lead_to_why_they_match(ids: dict[str, str]) -> None:
    at = open_page("../pages/search.py", photo=ids["coffee"], part="0.5,0.25,0.4,0.5")
    assert component(at, "vs_hits")["explained"] == 2
