"""The benchmark of the pages, on a small library: the first clicks."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import sync_playwright

from benchmarks import page_load
from benchmarks.large_library import make_library, make_photos
from benchmarks.page_clicks import all_clicks
from benchmarks.page_load import CHROMIUM, CHROMIUM_ARGS, add_metadata, serve_app, time_click, visit


@pytest.mark.browser
@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs Chromium")
def test_clicks_are_timed_from_their_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_load, "SETTLED_MS", 50)
    make_photos(tmp_path / "photos", 250)
    make_library(tmp_path, "color_layout")
    add_metadata(tmp_path / "library")
    clicks = list(islice(all_clicks(tmp_path), 8))
    with serve_app(tmp_path / "library") as (url, process), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        with visit(browser, url) as page:
            page_load.wait_until_drawn(page, "grid")
            taken = {click.name: time_click(page, click, process) for click in clicks}
        browser.close()
    assert list(taken)[:2] == ["Search: the next photos", "the Browse page"]
    assert all(0 < one.seconds < 30 for one in taken.values())
