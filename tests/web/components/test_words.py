"""Words on the Search page: a box where the model knows words, its text in the address."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from tests.helpers import color_words_plugin
from tests.helpers.app_pages import open_app
from tests.web.conftest import StartServer
from vitmae_search.library import Library
from vitmae_search.records import SavedSearch
from vitmae_search.web.components import saved_search
from vitmae_search.web.server.session import close_libraries

COLORS = ("red", "lime", "blue", "yellow", "black")


@pytest.fixture
def colors(tmp_path: Path) -> tuple[Path, Path]:
    """The folders of a library of plain colors, and of the plugin that it was indexed with."""
    plugins, photos = tmp_path / "plugins", tmp_path / "photos"
    plugins.mkdir()
    photos.mkdir()
    shutil.copy(str(color_words_plugin.__file__), plugins / "color_words.py")
    for color in COLORS:
        Image.new("RGB", (160, 120), color).save(photos / f"{color}.png")
    with Library.open(tmp_path / "library", embedder="color_words", plugin_folders=[plugins]) as library:
        library.index(photos)
    return tmp_path / "library", plugins


@pytest.fixture
def opened_colors(colors: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    from vitmae_search.web.server.session import library

    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(colors[0]))
    monkeypatch.setenv("VITMAE_SEARCH_PLUGINS", str(colors[1]))
    close_libraries()
    yield library()
    close_libraries()


def names(at: AppTest) -> list[str]:
    grids: list[Any] = [
        json.loads(grid.proto.json) for grid in at.get("bidi_component") if "vs_hits" in grid.proto.id
    ]
    return [Path(photo["name"]).stem for photo in grids[0]["photos"]]


def said(at: AppTest) -> str:
    return unescape(" ".join(str(block.proto.body) for block in at.get("html")))


def test_a_box_asks_for_words(opened_colors: Library) -> None:
    at = open_app()
    at.text_input(key="vs_words").set_value("a lime bicycle").run()
    assert at.query_params["words"] == "a lime bicycle"
    assert names(at)[0] == "lime"
    assert "Photos that fit" in said(at)
    assert "“a lime bicycle”" in said(at)
    at.text_input(key="vs_words").set_value("").run()
    assert "words" not in at.query_params
    assert at.get("file_uploader")


def test_words_beside_a_picture(opened_colors: Library) -> None:
    red = next(photo.photo_id for photo in opened_colors.photos() if photo.path.endswith("red.png"))
    at = open_app(photo=str(red), words="lime")
    assert names(at)[0] == "yellow"
    assert "red.png and “lime”" in said(at)


def test_a_saved_search_of_words_is_an_address(opened_colors: Library) -> None:
    at = open_app(words="blue")
    at.text_input(key="vs_save_name").set_value("all blue").run()
    next(button for button in at.button if button.key == "vs_save").click().run()
    saved = opened_colors.saved_search("all blue")
    assert saved.words == (("blue", 1.0),)
    assert saved_search.address(saved).startswith("./?words=blue")
    both = SavedSearch("both", ((3, 1.0), (4, 2.0)), words=(("blue", 1.0),))
    assert saved_search.address(both).startswith("./?words=blue&more=3_4x2")


def test_no_box_where_the_model_knows_no_words(opened: Library) -> None:
    at = open_app()
    assert not [box for box in at.text_input if box.key == "vs_words"]
    assert "does not know words" in said(open_app(words="lime"))


@pytest.mark.browser
def test_words_in_a_real_browser(colors: tuple[Path, Path], start_server: StartServer, chromium: Any) -> None:
    server = start_server(colors[0], VITMAE_SEARCH_PLUGINS=str(colors[1]))
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    page.goto(server.url)
    box = page.get_by_role("textbox", name="Say what is in the photo")
    box.fill("something blue")
    box.press("Enter")
    page.get_by_text("Photos that fit").wait_for()
    page.wait_for_url("**words=something+blue**")
    page.get_by_text("blue.png").first.wait_for()
    page.go_back()
    page.get_by_role("textbox", name="Say what is in the photo").wait_for()
