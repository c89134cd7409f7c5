"""`search https://...`: off unless it is set, and then for public servers only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.picture_server import serve_folder
from vitmae_search.photos import web_picture

Command = Callable[..., Any]


def test_a_picture_by_its_address(
    vitmae_search: Command, indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_folder(indexed) as url:
        off = vitmae_search("search", f"{url}/1.jpg")
        assert (off.code, "VITMAE_SEARCH_WEB_PICTURES=on" in off.err) == (1, True)
        monkeypatch.setenv("VITMAE_SEARCH_WEB_PICTURES", "on")
        refused = vitmae_search("search", f"{url}/1.jpg")
        assert (refused.code, "no public address" in refused.err) == (1, True)
        monkeypatch.setattr(web_picture, "is_public", lambda address: True)
        found = vitmae_search("search", f"{url}/1.jpg", "--json").json
        assert (found["known"], found["hits"][0]["path"]) == (True, str(indexed / "1.jpg"))
        mixed = vitmae_search("search", f"2:HTTP{url.removeprefix('http')}/1.jpg", "id:3", "--json").json
        assert mixed["examples"] == 2
        page = vitmae_search("search", f"{url}/")
        assert (page.code, "no picture, but text/html" in page.err) == (1, True)
    monkeypatch.setenv("VITMAE_SEARCH_WEB_PICTURES", "perhaps")
    assert "must be on or off" in vitmae_search("status").err
