"""Two spaces side by side on the Search page, and another model on the Library page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.helpers.app_pages import open_app, open_page
from vitmae_search.library import Library
from vitmae_search.records import ScoreCalibration
from vitmae_search.web.components import beside
from vitmae_search.web.server import session


@pytest.fixture
def two(
    tmp_path: Path, write_photo: Callable[[Path, int], Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Library]:
    """Twelve photos in space 1, eight of them in space 2."""
    for seed in range(12):
        write_photo(tmp_path / "photos" / ("new" if seed > 7 else "old") / f"{seed}.jpg", seed)
    for options, folders in (({}, ("old", "new")), ({"histogram": "false"}, ("old",))):
        with Library.open(tmp_path / "library", embedder="color_layout", options=options) as made:
            made.index([tmp_path / "photos" / folder for folder in folders])
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    yield session.library()
    session.close_libraries()


def tiles(at: AppTest, key: str) -> list[dict[str, Any]]:
    grids = [json.loads(one.proto.json) for one in at.get("bidi_component") if key in one.proto.id]
    return [photo for grid in grids for photo in grid["photos"]]


def said(at: AppTest) -> str:
    return " ".join(str(block.proto.body) for block in at.get("html"))


def test_two_spaces_answer_side_by_side(two: Library) -> None:
    photo = next(photo for photo in two.photos() if photo.path.endswith("3.jpg"))
    at = open_app(photo=str(photo.photo_id), beside="2", k="12")
    first, second = two.similar(photo.photo_id, k=12), two.similar(photo.photo_id, k=12, space=2)
    for key, found in (("vs_hits", first), ("vs_beside_hits", second)):
        assert [tile["id"] for tile in tiles(at, key)] == [hit.photo.photo_id for hit in found.hits]
    both = first.shared_with(second)
    marked = [tile["id"] for tile in tiles(at, "vs_hits") if "both" in tile["note"]]
    assert marked == [hit.photo.photo_id for hit in first.hits if hit.photo.content_id in both]
    assert f"{len(marked)} of 11 hits are in both." in said(at)
    assert "8 of 12 photos are in this space." in said(at)
    at.selectbox(key="vs_beside").set_value("").run()
    assert "beside" not in at.query_params
    assert not tiles(at, "vs_beside_hits")


def test_a_part_is_searched_for_in_both_spaces(two: Library) -> None:
    photo = next(photo for photo in two.photos() if photo.path.endswith("3.jpg"))
    at = open_app(photo=str(photo.photo_id), beside="2", part="0.1,0.1,0.5,0.5")
    for key, space in (("vs_hits", 1), ("vs_beside_hits", 2)):
        found = two.search_region(photo.photo_id, (0.1, 0.1, 0.5, 0.5), k=24, space=space)
        assert [tile["id"] for tile in tiles(at, key)] == [hit.photo.photo_id for hit in found.hits]


def test_how_alike_hits_are_counts_where_it_was_measured(two: Library) -> None:
    space = two.spaces()[0]
    assert not beside.knows(space, "alike")
    measured = {"calibration": asdict(ScoreCalibration(same=None, alike=0.9, photos=12))}
    assert beside.knows(replace(space, provenance=measured), "alike")
    assert not beside.knows(replace(space, provenance=measured), "same")


def test_the_library_page_fills_a_space(two: Library) -> None:
    at = open_page("../pages/library.py")
    assert "8 of 12 photos are in this space" in said(at)
    buttons = {button.key for button in at.button}
    assert {"vs_fill_2", "vs_use_2", "vs_fill"} <= buttons
    assert "vs_fill_1" not in buttons
    assert "color_layout" in at.selectbox(key="vs_fill_model").options
