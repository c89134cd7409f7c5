"""In a real Chromium: near-identical photos are one tile, which opens, and a switch shows them one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitmae_search.embedding import Projection
from vitmae_search.library import Library
from vitmae_search.records import ScoreCalibration

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect


@pytest.mark.browser
def test_a_stack_is_one_tile_that_opens(
    tmp_path: Path, real_photos: Mapping[str, Path], start_server: Callable[..., Any], chromium: Any
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    with Image.open(real_photos["coffee"]) as opened:
        scene = opened.convert("RGB")
    for number in range(6):
        scene.resize((300 + 8 * number, 200 + 5 * number)).save(folder / f"coffee-{number}.jpg")
    for name in ("astronaut", "chelsea", "rocket"):
        with Image.open(real_photos[name]) as opened:
            opened.convert("RGB").resize((300, 200)).save(folder / f"{name}.jpg")
    with Library.open(tmp_path / "library", embedder="color_layout") as library:
        library.index([folder])
        width = library.spaces()[0].dimension
        calibration = ScoreCalibration(0.8, 0.3, 200)
        library.derive_space(Projection([np.eye(width)], [np.zeros(width)], "head", calibration=calibration))
        first = next(p.photo_id for p in library.photos() if p.path.endswith("coffee-0.jpg"))
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(30_000)
    page.goto(f"{start_server(tmp_path / 'library').url}/?photo={first}")
    tiles = page.get_by_role("button", name=re.compile(", rank "))
    more = page.get_by_role("button", name=re.compile("^4 near-identical to coffee-"))
    expect(more).to_have_text("+4", timeout=30_000)
    expect(tiles).to_have_count(4)
    more.click()
    expect(tiles).to_have_count(8)
    member = page.get_by_role("button", name=re.compile("^coffee-.*rank 1,")).nth(2)
    member.locator("img").evaluate("image => image.decode()")
    member.click()
    expect(page.get_by_role("dialog").get_by_text("3 of 8")).to_be_visible(timeout=30_000)
    page.go_back()
    expect(page.get_by_role("dialog")).to_be_hidden(timeout=30_000)
    more.click()
    expect(tiles).to_have_count(4)
    page.get_by_role("button", name="More filters").click()
    switch = page.get_by_text("Stack near-identical photos")
    expect(switch).to_be_visible()
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()
    switch.click()
    page.wait_for_url("**stacks=off**")
    expect(tiles).to_have_count(8, timeout=30_000)
    expect(more).to_have_count(0)
    page.close()
