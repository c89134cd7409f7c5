"""A training in a real Chromium: it resumes, shows after a reload, draws its curves, and is stopped."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.tiny_model import TINY_MODEL
from vitmae_search.library import Library
from vitmae_search.settings import DATA, settings
from vitmae_search.training_runs import LOG_FILE, read_training_run

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

SMALL = {**TINY_MODEL, "norm_pix_loss": True}
QUICK = {"epochs": 1e6, "batch_size": 2, "precision": "fp32", "threads": 1, "device": "cpu"}
HOSTILE = "![x](http:/127.0.0.1:9/p.png)<img src=x onerror=alert(1)>"


@pytest.fixture
def stopped(tmp_path: Path, small: Any, opened_copy: Library) -> Iterator[Path]:
    """A small pretraining on the library's photos that was stopped after its first step."""
    from vitmae_search.training import pretrain

    output = tmp_path / HOSTILE
    pretrain(small.photos, output, model=SMALL, options=QUICK, stop=lambda: True)
    assert read_training_run(output).state == "interrupted"
    yield output
    for run in opened_copy.jobs():
        if run.state == "running":  # it would train for ever
            os.kill(run.pid, signal.SIGKILL)


def test_a_stopped_training_resumes_survives_a_reload_and_is_stopped(
    stopped: Path, opened_copy: Library, start_server: Callable[..., Any], chromium: Any
) -> None:
    server = start_server(opened_copy.folder, **{DATA: str(settings().data)})
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(60_000)
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.on("dialog", lambda dialog: (requested.append(dialog.message), dialog.dismiss()))
    page.goto(f"{server.url}/training")
    card = page.locator(".vs-card").filter(has_text="Pretraining on")
    expect(card).to_contain_text(f"in {stopped}")
    expect(card.get_by_text("stopped", exact=True)).to_be_visible()
    expect(page.get_by_role("img", name="Photos that it learns from")).to_be_visible()
    strip = page.get_by_role("group", name="Film strip")
    expect(strip.get_by_role("img", name="completed after 0 epochs")).to_be_visible()

    page.get_by_role("button", name="Go on").click()
    expect(card.get_by_text("running", exact=True)).to_be_visible()
    # It draws itself anew: nobody reloads the page until the curve is there.
    curve = page.get_by_label("Loss by epoch").locator("canvas, svg").first
    expect(curve).to_be_visible()
    expect(strip.get_by_role("img", name="completed after").nth(3)).to_be_attached()  # by itself, too
    logged = len((stopped / LOG_FILE).read_text().splitlines())
    page.reload()
    expect(card.get_by_text("running", exact=True)).to_be_visible()
    expect(curve).to_be_visible()
    expect(page.get_by_role("button", name="Start training")).to_be_disabled()

    page.get_by_role("button", name="Stop", exact=True).click()
    expect(card.get_by_text("stopped", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Start training")).to_be_enabled()
    lines = [json.loads(line) for line in (stopped / LOG_FILE).read_text().splitlines()]
    assert len(lines) >= logged
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})
    assert not [url for url in requested if not url.startswith((server.url, "data:", "blob:"))]
    context.close()


def test_a_training_that_was_started_here_is_shown_and_can_be_stopped(
    small: Any, opened_copy: Library, start_server: Callable[..., Any], chromium: Any
) -> None:
    """The select box sends back its own label, also of a folder that no list has yet."""
    server = start_server(opened_copy.folder, **{DATA: str(settings().data)})
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{server.url}/training")
    page.get_by_role("textbox", name="Folder of photos to learn from").fill(str(small.photos))
    page.get_by_role("button", name="Start training").click()
    card = page.locator(".vs-card").filter(has_text="Pretraining on")
    expect(card.get_by_text("running", exact=True)).to_be_visible()
    # What is typed into a field beside it makes the browser send the box's value again.
    page.get_by_role("spinbutton", name="Epochs at most").fill("7")
    page.get_by_role("spinbutton", name="Epochs at most").press("Tab")
    assert page.get_by_role("alert").count() == 0
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(card.get_by_text("stopped", exact=True)).to_be_visible()
    assert page.get_by_role("alert").count() == 0
    context.close()
