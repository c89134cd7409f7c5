"""Filters are kept in the page's address, and the page says which are on."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.helpers.app_pages import open_app
from vitmae_search.library import Library
from vitmae_search.web.server.app import MAIN_SCRIPT


def said(at: AppTest) -> str:
    return unescape(" ".join(str(block.proto.body) for block in at.get("html")))


def bar(at: AppTest) -> dict[str, Any]:
    (found,) = [json.loads(one.proto.json) for one in at.get("bidi_component") if "vs_bar" in one.proto.id]
    return dict(found)


def chips(at: AppTest) -> dict[str, str]:
    """What is on, by the title of its chip."""
    on = [facet for facet in bar(at)["facets"] if facet.get("clear") and facet["text"]]
    return {facet["title"]: facet["text"] for facet in on}


def shows_results(at: AppTest) -> bool:
    return any("vs_hits" in grid.proto.id for grid in at.get("bidi_component"))


@pytest.fixture
def nested(opened_copy: Library, small: Any, tmp_path: Path) -> Library:
    """Photos in /a/trip, /b/trip and /b/home, where /a and /b are indexed."""
    for place, name in (("a/trip", "rocket.jpg"), ("b/trip", "china.jpg"), ("b/home", "coffee.jpg")):
        (tmp_path / place).mkdir(parents=True)
        # A changed copy, so that it is a content of its own.
        data = (small.photos / name).read_bytes() + place.encode()
        (tmp_path / place / name).write_bytes(data)
    opened_copy.index([tmp_path / "a", tmp_path / "b"])
    return opened_copy


def test_filters_are_in_the_address_and_a_new_visit_has_them(opened: Library, small: Any) -> None:
    at = open_app(photo="1", page="2")
    assert chips(at) == {}
    at.text_input(key="vs_under").set_value(str(small.photos)).run()
    at.text_input(key="vs_camera").set_value("canon").run()
    assert at.query_params["under"] == str(small.photos)
    assert at.query_params["camera"] == "canon"
    assert "page" not in at.query_params
    again = open_app(
        photo="1", under=str(small.photos), camera="canon", after="2020-05-01", before="2021-01-31"
    )
    assert again.text_input(key="vs_camera").value == "canon"
    assert str(again.date_input(key="vs_after").value) == "2020-05-01"
    assert chips(again) == {"Folder": "photos", "Camera": "canon", "Date": "1 May 2020 to 31 January 2021"}


def test_filters_stay_from_one_query_to_the_next(opened: Library) -> None:
    from vitmae_search.web.components.filter_parameters import PARAMETERS
    from vitmae_search.web.components.query_picker import KEPT

    assert {*PARAMETERS, "sort", "stacks", "k", "beside"} <= set(KEPT)


@pytest.mark.parametrize(
    "query",
    [
        {"after": "yesterday"},
        {"before": "9999-12-31"},
        {"tag": "no such tag", "tag_sure": "9" * 5000},
        {"alike": "x"},
        {"camera": "  "},
        {"k": "9" * 5000},
        {"page": "9" * 5000},
    ],
)
def test_what_reads_as_no_filter_is_none(opened: Library, query: dict[str, str]) -> None:
    at = open_app(photo="1", **query)
    assert chips(at) == {}
    assert shows_results(at)


def test_a_relative_folder_is_one_inside_an_indexed_folder(nested: Library, tmp_path: Path) -> None:
    for typed in ("home", "b/home", "./home/", str(tmp_path / "b" / "home")):
        at = open_app(photo="1", under=typed)
        assert chips(at) == {"Folder": "b/home"}
        assert shows_results(at)


def test_a_relative_folder_is_not_looked_for_where_the_server_runs(
    nested: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "b" / "home")
    at = open_app(photo="1", under=".")
    assert not shows_results(at) or chips(at)["Folder"] != "b/home"


def test_a_folder_that_cannot_be_told_is_refused_with_what_to_do(nested: Library, tmp_path: Path) -> None:
    two = open_app(photo="1", under="trip")
    assert f"{tmp_path / 'a' / 'trip'} or {tmp_path / 'b' / 'trip'}; type the full path" in said(two)
    none = open_app(photo="1", under="nowhere")
    assert "The library has no photo in a folder nowhere; type a full path, or a folder inside" in said(none)
    assert not shows_results(two)
    assert not shows_results(none)
    assert bar(two)["clear"] == ["under"]


@pytest.mark.parametrize(
    ("page", "field", "button"),
    [("library", "vs_folder", "Index this folder"), ("training", "vs_train_folder", "Start training")],
)
def test_a_relative_folder_is_not_indexed_or_learned_from(
    opened_copy: Library,
    small: Any,
    monkeypatch: pytest.MonkeyPatch,
    page: str,
    field: str,
    button: str,
) -> None:
    monkeypatch.chdir(small.photos.parent)
    jobs = opened_copy.jobs()
    at = AppTest.from_file(str(MAIN_SCRIPT), default_timeout=60).run()
    at.switch_page(f"../pages/{page}.py").run()
    at.text_input(key=field).set_value("photos")
    next(b for b in at.button if b.label == button).click().run()
    assert "photos is not a full path; type it from its beginning, such as" in said(at).lower()
    assert opened_copy.jobs() == jobs


@pytest.mark.browser
def test_filters_outlive_a_reload_and_back_undoes_them(
    small: Any, start_server: Callable[..., Any], chromium: Any, tmp_path: Path
) -> None:
    shutil.copytree(small.folder, tmp_path / "library")
    server = start_server(tmp_path / "library")
    page = chromium.new_page()
    page.set_default_timeout(30_000)
    page.goto(f"{server.url}/?photo=1")
    page.get_by_role("button", name=re.compile("rank 1,")).wait_for()
    page.get_by_role("button", name="More filters").click()
    page.get_by_label("In this folder").fill("photos")
    page.get_by_label("In this folder").press("Enter")
    on = page.get_by_role("button", name="Remove the filter photos")
    on.wait_for()
    page.reload()
    on.wait_for()
    page.go_back()
    on.wait_for(state="hidden")
    page.go_forward()
    on.wait_for()
    # A photo is opened and closed by Back: the next change of another filter keeps this one.
    page.get_by_role("button", name=re.compile("rank 1,")).click()
    page.get_by_role("dialog").wait_for()
    page.go_back()
    page.get_by_role("dialog").wait_for(state="hidden")
    page.get_by_role("button", name="More filters").click()
    page.get_by_label("Camera").fill("x")
    page.get_by_label("Camera").press("Enter")
    page.get_by_role("button", name="Remove the filter x").wait_for()
    on.wait_for()
    page.get_by_role("button", name="Clear all", exact=True).click()
    on.wait_for(state="hidden")
    assert "under" not in page.url
    page.close()
