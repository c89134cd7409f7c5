"""Tags on the pages: the filter with counts, and a photo's facts; always as text."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from starlette.applications import Starlette
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from tests.helpers.app_pages import open_app
from vitmae_search.catalog import CatalogWriter
from vitmae_search.library import Library
from vitmae_search.records import SearchFilter, Tag
from vitmae_search.web.components.photo_facts import tag_facts
from vitmae_search.web.server.app import MAIN_SCRIPT
from vitmae_search.web.server.routes import photo_routes
from vitmae_search.web.server.session import close_libraries, library

# As Markdown a remote picture, as HTML a script.
HOSTILE = "![x](http://127.0.0.1:9/p.png)<img src=x onerror=alert(1)>"


@pytest.fixture
def tagged(
    tmp_path: Path, write_photo: Callable[[Path, int], Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Library]:
    """Eight photos. Photo n is a "cat" with confidence n / 10; two are `HOSTILE`."""
    for seed in range(8):
        write_photo(tmp_path / "photos" / f"{seed}.jpg", seed)
    with Library.open(tmp_path / "library", embedder="color_layout") as made:
        made.index([tmp_path / "photos"])
    with CatalogWriter.open_writer(tmp_path / "library") as writer:
        number = writer.ensure_classifier(fingerprint="f", source="s", model="pets <b>")
        batch = [(photo.content_id, [("cat", photo.photo_id / 10)]) for photo in writer.photos()]
        batch[0] = (batch[0][0], [(HOSTILE, 0.9), *batch[0][1]])
        batch[1] = (batch[1][0], [(HOSTILE, 0.8), *batch[1][1]])
        writer.record_tags(number, batch)
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    yield library()
    close_libraries()


def found(at: AppTest, grid: str = "vs_hits") -> set[int]:
    grids = [json.loads(g.proto.json) for g in at.get("bidi_component") if grid in g.proto.id]
    return {tile["id"] for tile in grids[0]["photos"]}


def test_a_tag_filters_the_results(tagged: Library) -> None:
    at = open_app(photo="1")
    assert at.selectbox(key="vs_tag").options == ["cat (8)", f"{HOSTILE} (2)"]
    assert at.selectbox(key="vs_tag").value is None
    assert len(found(at)) == 7
    at.selectbox(key="vs_tag").set_value("cat").run()
    assert len(found(at)) == 7
    at.slider(key="vs_tag_sure").set_value(50).run()
    wanted = {photo.photo_id for photo in tagged.photos(SearchFilter(tag="cat", min_confidence=0.5))}
    assert found(at) == wanted == {5, 6, 7, 8}
    at.selectbox(key="vs_tag").set_value(HOSTILE).run()
    at.slider(key="vs_tag_sure").set_value(85).run()
    assert len(found(at)) == 1
    at.button(key="vs_clear").click().run()
    assert at.selectbox(key="vs_tag").value is None
    assert len(found(at)) == 7


@pytest.mark.parametrize("page", ["../pages/search.py", "../pages/reconstructions.py"])
def test_a_tag_filters_what_may_be_chosen(tagged: Library, page: str) -> None:
    at = open_app()
    if page != "../pages/search.py":
        at.switch_page(page).run()
    assert len(found(at, "vs_browse")) == 8
    at.selectbox(key="vs_browse_tag").set_value("cat").run()
    at.slider(key="vs_browse_tag_sure").set_value(70).run()
    assert found(at, "vs_browse") == {7, 8}
    at.slider(key="vs_browse_tag_sure").set_value(100).run()
    assert not at.exception
    assert "No photo has this tag" in " ".join(str(block.proto.body) for block in at.get("html"))


def test_the_filter_begins_on_the_first_page_again(tagged: Library) -> None:
    at = open_app(photo="1", page="2", k="12")
    at.selectbox(key="vs_tag").set_value("cat").run()
    assert "page" not in at.query_params


def test_tags_that_go_take_the_filter_with_them(tagged: Library, tmp_path: Path) -> None:
    at = open_app(photo="1")
    at.selectbox(key="vs_tag").set_value(HOSTILE).run()
    with CatalogWriter.open_writer(tmp_path / "library") as writer:
        number = writer.ensure_classifier(fingerprint="f", source="s", model="pets")
        writer.record_tags(number, [(photo.content_id, []) for photo in writer.photos()])
    at.run()
    assert not at.exception
    assert len(found(at)) == 7
    assert not [box for box in at.selectbox if box.key == "vs_tag"]


def test_a_library_without_tags_offers_none(opened: Library) -> None:
    at = open_app(photo="1")
    assert not [box for box in at.selectbox if box.key == "vs_tag"]


def test_no_tag_reaches_markdown_or_html(tagged: Library) -> None:
    at = open_app(photo="1")
    at.selectbox(key="vs_tag").set_value(HOSTILE).run()
    for kind in ("markdown", "caption", "error", "warning", "info", "success", "table", "toast"):
        assert not any("onerror" in str(block.proto) for block in at.get(kind))
    assert not any("<img src=x" in str(block.proto.body) for block in at.get("html"))
    for widget in (*at.button, *at.text_input, *at.selectbox, *at.slider):
        assert "onerror" not in widget.label
        assert "onerror" not in (widget.help or "")


def test_a_photos_tags_are_among_its_details(tagged: Library) -> None:
    photo = tagged.photos(SearchFilter(tag=HOSTILE))[0]
    with TestClient(Starlette(routes=[*photo_routes()])) as client:
        answer = client.get(f"/details/{photo.photo_id}")
    sure = {tag.name: tag.confidence for tag in tagged.tags(photo.photo_id)}
    assert ["Tags", f"{HOSTILE} ({sure[HOSTILE]:.0%}), cat ({sure['cat']:.0%})"] in answer.json()["facts"]
    assert answer.headers["content-type"] == "application/json"


def test_tags_of_two_classifiers_are_shown_separately() -> None:
    tags = [Tag("cat", 0.75, "pets"), Tag("dog", 0.25, "pets"), Tag("sofa\n", 1.0, "places")]
    assert tag_facts(tags) == [("Tags by pets", "cat (75%), dog (25%)"), ("Tags by places", "sofa\\n (100%)")]
    assert tag_facts(tags[:2]) == [("Tags", "cat (75%), dog (25%)")]
    assert tag_facts([]) == []


def test_a_classify_run_has_its_own_title(tagged: Library, tmp_path: Path) -> None:
    with CatalogWriter.open_writer(tmp_path / "library") as writer:
        writer.start_run("k", "classify", {"model": "/models/<b>pets", "folder": None})
        writer.update_run("k", {"phase": "classifying", "done": 3, "total": 8, "failed": 0})
        at = AppTest.from_file(str(MAIN_SCRIPT), default_timeout=60).run()
        at.switch_page("../pages/library.py").run()
        assert not at.exception
        text = " ".join(str(block.proto.body) for block in at.get("html"))
        assert "Classifying photos by /models/&lt;b&gt;pets" in text
        writer.finish_run("k", "failed", error="no classifier")
    at.run()
    text = unescape(" ".join(str(block.proto.body) for block in at.get("html")))
    assert "Classifying photos by /models/<b>pets failed: no classifier" in text


@pytest.mark.browser
def test_a_browser_shows_tags_as_text(
    tagged: Library, start_server: Callable[..., Any], chromium: Any
) -> None:
    """The choices of the filter, too, which Streamlit draws."""
    server = start_server(tagged.folder)
    page = chromium.new_page()
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.on("dialog", lambda dialog: (requested.append(dialog.message), dialog.dismiss()))
    page.set_default_timeout(30_000)
    page.goto(f"{server.url}/?photo=1")
    # A script that is still running draws the menu anew, and a menu that was open by then is closed.
    settled = page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]')
    page.get_by_role("button", name=re.compile("rank 1,")).first.wait_for()
    settled.wait_for()
    page.get_by_role("button", name="More filters").click()
    menu = page.get_by_role("combobox", name="Tag")
    menu.wait_for()
    settled.wait_for()
    choice = page.get_by_role("option").filter(has_text="onerror")
    for _ in range(10):
        menu.click()
        with contextlib.suppress(PlaywrightTimeout):
            choice.wait_for(timeout=3_000)
            break
    assert choice.inner_text().strip() == f"{HOSTILE} (2)"
    choice.click()
    page.get_by_role("slider", name="At least this sure").wait_for()
    assert not [url for url in requested if not url.startswith((server.url, "data:", "blob:"))]
    page.close()
