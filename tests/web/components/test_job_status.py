"""How the page reports the outcome of long jobs."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from vitmae_search.catalog import CatalogWriter
from vitmae_search.library import Library
from vitmae_search.web.server.app import MAIN_SCRIPT

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


def test_an_outcome_counts_the_files_that_are_no_photos(opened_copy: Library) -> None:
    with CatalogWriter.open_writer(opened_copy.folder) as catalog:
        catalog.start_run("a run", "index", {"folders": ["/photos"]})
        watching = library_page()
        others = {f".x{number}": 1000 for number in range(6)}
        catalog.finish_run("a run", "done", {"added": 3, "not_looked_at": {"": 1} | others})
    watching.run()
    said = f"{DONE}, 6,001 other files not looked at (no suffix, .x0, .x1, .x2, .x3, ...)"
    assert said in notices(watching)
