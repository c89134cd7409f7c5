"""An app with several libraries: one is chosen on the page, and addresses name theirs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from starlette.applications import Starlette
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from tests.helpers.app_pages import open_app
from vitmae_search.cli.main import run
from vitmae_search.errors import VitmaeSearchError
from vitmae_search.library import Library
from vitmae_search.settings import environment_for, named_library, settings
from vitmae_search.web.server import session
from vitmae_search.web.server.app import MAIN_SCRIPT
from vitmae_search.web.server.routes import photo_routes

WritePhoto = Callable[[Path, int], Path]


@pytest.fixture
def two(tmp_path: Path, write_photo: WritePhoto, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Libraries "home" of three photos and "work <b>" of two, as those of the app."""
    folders = [tmp_path / "libraries" / "home", tmp_path / "libraries" / "work <b>"]
    for folder, count in zip(folders, (3, 2), strict=True):
        for number in range(count):
            write_photo(tmp_path / folder.name / f"{folder.name} {number}.jpg", number + 10 * count)
        with Library.open(folder, embedder="color_layout") as library:
            library.index([tmp_path / folder.name])
    for name, value in environment_for(*folders).items():
        monkeypatch.setenv(name, value)
    yield folders
    session.close_libraries()


def names(at: AppTest, key: str = "vs_browse") -> list[str]:
    (grid,) = [json.loads(one.proto.json) for one in at.get("bidi_component") if key in one.proto.id]
    return sorted(tile["name"] for tile in grid["photos"])


def test_one_is_chosen_and_stays_from_page_to_page(two: list[Path]) -> None:
    at = open_app()
    assert at.selectbox(key="vs_library").options == ["home", "work <b>"]
    assert names(at) == [f"home {number}.jpg" for number in range(3)]
    at.selectbox(key="vs_library").set_value(two[1]).run()
    assert names(at) == [f"work <b> {number}.jpg" for number in range(2)]
    assert at.query_params["library"] == session.open_library(two[1]).identity
    at.switch_page("../pages/browse.py")
    at.query_params.clear()
    at.run()
    assert len(names(at, "vs_photos")) == 2
    assert at.selectbox(key="vs_library").value == two[1]


def test_an_address_is_of_the_library_that_it_names(two: list[Path]) -> None:
    identities = [session.open_library(folder).identity or "" for folder in two]
    for folder, identity in zip(two, identities, strict=True):
        at = open_app(photo="1", library=identity)
        assert at.selectbox(key="vs_library").value == folder
        assert all(name.startswith(folder.name) for name in names(at, "vs_hits"))
    with TestClient(Starlette(routes=[*photo_routes()])) as client:
        found = [client.get(f"/details/1?library={identity}").json()["path"] for identity in identities]
        assert [Path(path).parent.name for path in found] == ["home", "work <b>"]
        assert client.get("/details/1").json()["path"] == found[0]
        assert client.get("/details/1?library=00000000").status_code == 404
        thumbs = {client.get(f"/thumb/1?library={identity}").content for identity in identities}
        assert len(thumbs) == 2


def test_pictures_name_their_library_where_there_are_several(two: list[Path], tmp_path: Path) -> None:
    at = open_app(library=session.open_library(two[1]).identity or "")
    (grid,) = [json.loads(one.proto.json) for one in at.get("bidi_component") if "vs_browse" in one.proto.id]
    assert {tile["src"].split("&")[1] for tile in grid["photos"]} == {
        f"library={session.open_library(two[1]).identity}"
    }


def test_a_browser_keeps_a_library_for_each_port(two: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    home, work = [session.open_library(folder).identity or "" for folder in two]
    cookies = {"vs_library_8502": work, "vs_library_8501": home, "vs_library": work}
    monkeypatch.setattr(type(st.context), "cookies", cookies)  # the test runner has no way to send any
    for url, chosen in {
        "http://localhost:8502/": two[1],
        "http://[::1]:8502/browse": two[1],
        "http://localhost:8501/": two[0],
        "http://localhost:850/": two[0],  # nothing is kept for it, and the first is home
        "https://photos.example/": two[1],
    }.items():
        at = AppTest.from_file(str(MAIN_SCRIPT), default_timeout=60)
        at.context["url"] = url
        assert at.run().selectbox(key="vs_library").value == chosen, url


def test_a_single_library_is_not_chosen(opened: Library) -> None:
    assert not [box for box in open_app().selectbox if box.key == "vs_library"]


def test_a_library_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {
        "VITMAE_SEARCH_LIBRARIES": os.pathsep.join(["/a/home", "/a/work", "/b/work"]),
        "VITMAE_SEARCH_DATA": str(tmp_path),
        "VITMAE_SEARCH_CACHE": str(tmp_path),
    }
    assert settings(environ).library == Path("/a/home")
    assert settings(environ).libraries == (Path("/a/home"), Path("/a/work"), Path("/b/work"))
    only = {**environ, "VITMAE_SEARCH_LIBRARY": "/c"}
    assert settings(only).libraries == (Path("/c"), *settings(environ).libraries)
    assert named_library(Path("home"), environ) == Path("/a/home")
    assert named_library(Path("other"), environ) == Path("other")
    assert named_library(Path("./x/home"), environ) == Path("x/home")
    with pytest.raises(VitmaeSearchError, match="several libraries are named work: /a/work, /b/work"):
        named_library(Path("work"), environ)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    assert named_library(Path("home"), environ) == Path("home")


def test_the_command_line_takes_a_name(two: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--library", "work <b>", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["photos"] == 2


def test_a_path_with_the_separator_cannot_be_one_of_several(tmp_path: Path) -> None:
    with pytest.raises(VitmaeSearchError, match="must not have a"):
        environment_for(tmp_path / "a", tmp_path / f"b{os.pathsep}c")


@pytest.mark.browser
def test_several_in_a_browser(two: list[Path], start_server: Callable[..., Any], chromium: Any) -> None:
    from playwright.sync_api import expect

    flags = ["--library", str(two[1])]
    page = chromium.new_page(viewport={"width": 1200, "height": 800})
    page.set_default_timeout(30_000)
    page.goto(f"{start_server(two[0], 'command', flags=flags).url}/browse")
    expect(page.get_by_text("home 0.jpg")).to_be_visible(timeout=30_000)
    page.get_by_role("combobox", name="Library").click()
    page.get_by_role("option", name="work <b>").click()
    expect(page.get_by_text("work <b> 0.jpg")).to_be_visible(timeout=30_000)
    picture = page.locator(".tile img").first
    picture.evaluate("image => image.decode()")
    page.locator(".tile .open").first.click()
    large = page.get_by_role("dialog").get_by_role("img")
    expect(large).to_have_attribute("alt", re.compile("^work <b> [01].jpg$"))
    page.reload()
    expect(page.get_by_role("dialog").get_by_role("img")).to_be_visible(timeout=30_000)
    page.keyboard.press("Escape")
    expect(page.get_by_text("work <b> 0.jpg")).to_be_visible(timeout=30_000)
    # Loaded again without its name in the address, it is the same library. Others begin with the first.
    page.goto(page.url.partition("?")[0])
    expect(page.get_by_text("work <b> 0.jpg")).to_be_visible(timeout=30_000)
    assert "library=" not in page.url
    other = chromium.new_context().new_page()
    other.goto(page.url)
    expect(other.get_by_text("home 0.jpg")).to_be_visible(timeout=30_000)
    other.context.close()
    page.close()
