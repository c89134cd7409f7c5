"""How the page reports the outcome of long jobs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.helpers.postgresql_server import PostgresqlServer
from vitmae_search.catalog import CatalogWriter
from vitmae_search.library import Library
from vitmae_search.web.server.app import MAIN_SCRIPT
from vitmae_search.web.server.session import close_libraries

DONE = "is done, 3 added"


def library_page() -> AppTest:
    at = AppTest.from_file(str(MAIN_SCRIPT), default_timeout=60)
    at.run()
    at.switch_page("../pages/library.py")
    at.run()
    assert not at.exception, at.exception
    return at


def notices(at: AppTest) -> str:
    """What the page says in boxes, without its list of runs."""
    return " ".join(text for block in at.get("html") if "vs-notice" in (text := str(block.proto.body)))


def test_a_visitor_who_watched_a_job_sees_its_outcome_at_each_redraw(
    opened_copy: Library,
) -> None:
    with CatalogWriter.open_writer(opened_copy.folder) as catalog:
        catalog.start_run("a run", "index", {"folders": ["/photos"]})
        watching = library_page()
        catalog.finish_run("a run", "done", {"added": 3})
    for _ in range(2):
        watching.run()
        assert f"Indexing /photos {DONE}" in notices(watching)
    with CatalogWriter.open_writer(opened_copy.folder) as catalog:
        catalog.start_run("the next run", "index", {"folders": ["/others"]})
        watching.run()
        assert DONE not in notices(watching)


def test_a_later_visitor_does_not_see_the_outcome(opened_copy: Library) -> None:
    with CatalogWriter.open_writer(opened_copy.folder) as catalog:
        catalog.start_run("a run", "index", {"folders": ["/photos"]})
        catalog.finish_run("a run", "done", {"added": 3})
    assert DONE not in notices(library_page())


def test_a_visitor_who_started_a_job_sees_its_outcome_even_if_it_never_showed_as_running(
    opened_copy: Library, real_photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(real_photos["chelsea"], photos)
    start = Library.start_job

    def start_and_wait(library: Library, *words: str) -> str:
        key = start(library, *words)
        deadline = time.monotonic() + 60
        while (run := library.job(key)) is None or run.state == "running":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return key

    monkeypatch.setattr(Library, "start_job", start_and_wait)
    page = library_page()
    page.text_input(key="vs_folder").set_value(str(photos))
    next(button for button in page.button if button.label == "Index this folder").click()
    page.run()
    assert "is done, 1 added" in notices(page)


def test_a_running_job_says_how_long_it_still_takes(opened_copy: Library) -> None:
    with CatalogWriter.open_writer(opened_copy.folder) as catalog:
        catalog.start_run("a run", "index", {"folders": ["/photos"]})
        begun = {"phase": "indexing", "done": 1000, "total": 7000, "photos_per_second": 8.0}
        catalog.update_run("a run", begun)
        (bar,) = library_page().get("progress")
        catalog.finish_run("a run", "done", {})
    assert bar.proto.text == "Reading photos · 1,000 of 7,000 · 8.0 photos a second · 12 min left"


SLOW_PLUGIN = """
import time

import numpy as np

from vitmae_search.embedding import Embedder, EmbedderPlugin, PluginInfo


def prepare(image, /):
    return np.asarray(image.convert("RGB").resize((8, 8)))


class Slow(Embedder):
    model = "slow"
    dimension = 192
    input_size = 8
    identity = {"side": 8}
    prepare = staticmethod(prepare)

    def embed(self, batch):
        time.sleep(0.8)
        rows = batch.reshape(len(batch), -1).astype(np.float32) + 1
        return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


class Plugin(EmbedderPlugin):
    info = PluginInfo(name="slow", title="Slow")

    def open(self, options, *, device, precision):
        return Slow()


plugin = Plugin()
"""


@pytest.mark.browser
def test_counters_move_while_another_process_indexes(
    tmp_path: Path, write_photo: Callable[[Path, int], Path], start_server: Callable[..., Any], chromium: Any
) -> None:
    plugins, photos, folder = tmp_path / "plugins", tmp_path / "photos", tmp_path / "library"
    plugins.mkdir()
    (plugins / "slow.py").write_text(SLOW_PLUGIN)
    for seed in range(80):
        write_photo(photos / f"{seed}.jpg", seed)
    (photos / "00-broken.jpg").write_bytes(b"no photo")
    server = start_server(folder, VITMAE_SEARCH_PLUGINS=str(plugins))
    page = chromium.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{server.url}/library")
    page.get_by_text("Begin with a folder of photos").wait_for()
    command = [sys.executable, "-m", "vitmae_search", "index", str(photos), "--library", str(folder)]
    words = ["--embedder", "slow", "--batch-size", "4"]
    environ = {**os.environ, "VITMAE_SEARCH_PLUGINS": str(plugins)}
    other = subprocess.Popen([*command, *words], env=environ, stderr=subprocess.DEVNULL)
    page.get_by_text(re.compile(r"photos a second · [0-9]+ s left")).wait_for()
    counted, of_the_space, failed = set(), set(), False
    while other.poll() is None:
        metric = page.get_by_test_id("stMetricValue")
        if metric.count():
            counted.add(metric.first.inner_text())
        space = page.get_by_text(re.compile("^Features: ")).all_inner_texts()
        of_the_space.update(re.findall(r"([0-9]+) pictures", " ".join(space)))
        failed = failed or page.get_by_text("00-broken.jpg").count() > 0
        page.wait_for_timeout(300)
    assert other.wait() == 0
    assert len(counted - {"0", "80"}) >= 3, counted
    assert len(of_the_space - {"0", "80"}) >= 3, of_the_space
    assert failed
    page.get_by_text(f"Indexing {photos} is done, 80 added").wait_for()
    assert page.get_by_test_id("stMetricValue").first.inner_text() == "80"
    page.close()


def test_an_outcome_counts_the_files_that_are_no_photos(opened_copy: Library) -> None:
    with CatalogWriter.open_writer(opened_copy.folder) as catalog:
        catalog.start_run("a run", "index", {"folders": ["/photos"]})
        watching = library_page()
        others = {f".x{number}": 1000 for number in range(6)}
        catalog.finish_run("a run", "done", {"added": 3, "not_looked_at": {"": 1} | others})
    watching.run()
    said = f"{DONE}, 6,001 other files not looked at (no suffix, .x0, .x1, .x2, .x3, ...)"
    assert said in notices(watching)


def test_a_job_of_another_machine_blocks_nothing_where_the_catalogue_has_several_writers(
    small: Any, postgresql: PostgresqlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = postgresql.create()
    address = postgresql.address(name)
    with Library.open(tmp_path / "library", catalog=address, embedder="color_layout") as made:
        made.index([small.photos])
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setenv("VITMAE_SEARCH_CATALOG", address)
    try:
        with CatalogWriter.open_writer(tmp_path / "library", address) as catalog:
            catalog.start_run("there", "index", {"folders": ["/mnt/2024"]})
        assert library_page().button(key="vs_again_1").disabled
        postgresql.run("UPDATE runs SET host = 'gpu-box', machine = 'other' WHERE key = 'there'", name)
        at = library_page()
        shown = " ".join(str(block.proto.body) for block in at.get("html"))
        assert "Indexing /mnt/2024" in shown
        assert "On the machine gpu-box." in shown
        assert not at.button(key="vs_again_1").disabled
    finally:
        close_libraries()
    postgresql.drop(name)
