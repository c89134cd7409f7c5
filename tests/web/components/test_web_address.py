"""The field for a picture's address on the web: there only where it is set, and never for this machine."""

from __future__ import annotations

from html import unescape
from typing import Any

import pytest

from tests.helpers.app_pages import open_app
from tests.helpers.picture_server import serve_folder
from vitmae_search.library import Library
from vitmae_search.photos import web_picture


def said(at: Any) -> str:
    return unescape(" ".join(str(block.proto.body) for block in at.get("html")))


def test_there_is_no_field_by_default(opened: Library) -> None:
    assert not [field for field in open_app().text_input if field.key == "vs_web_address"]


def test_a_picture_is_fetched_and_searched_for(
    opened: Library, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITMAE_SEARCH_WEB_PICTURES", "on")
    with serve_folder(small.photos) as url:
        at = open_app()
        at.text_input(key="vs_web_address").set_value(f"{url}/coffee.jpg?x=/y")
        at.button[0].click().run()
        assert "no public address" in said(at)
        assert "upload" not in at.query_params
        monkeypatch.setattr(web_picture, "is_public", lambda address: True)
        at.text_input(key="vs_web_address").set_value(f"{url}/coffee.jpg?x=/y")
        at.button[0].click().run()
    assert at.query_params["upload"]
    assert "coffee.jpg" in said(at)
    assert any("vs_hits" in grid.proto.id for grid in at.get("bidi_component"))
