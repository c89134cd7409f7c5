"""What the page says of long jobs when they end."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest

from vitmae_search.catalog import CatalogWriter
from vitmae_search.library import Library
from vitmae_search.web.server import MAIN_SCRIPT

DONE = "is done, 3 added"


def library_page() -> AppTest:
    at = AppTest.from_file(str(MAIN_SCRIPT), default_timeout=60)
    at.run()
    at.switch_page("library.py")
    at.run()
    assert not at.exception, at.exception
    return at


def notices(at: AppTest) -> str:
    """What the page says in boxes, without its list of runs."""
    return " ".join(text for block in at.get("html") if "vs-notice" in (text := str(block.proto.body)))


def test_whoever_watched_a_run_is_told_how_it_ended_however_often_the_page_is_drawn(
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


def test_who_comes_later_is_not_told(opened_copy: Library) -> None:
    with CatalogWriter.open_writer(opened_copy.folder) as catalog:
        catalog.start_run("a run", "index", {"folders": ["/photos"]})
        catalog.finish_run("a run", "done", {"added": 3})
    assert DONE not in notices(library_page())
