"""Adapting from the Library page: its start, and the comparison of before and after."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from vitmae_search.catalog import CatalogWriter
from vitmae_search.library import Library
from vitmae_search.library.adapt.fit import AdaptOptions
from vitmae_search.web.components.adapt_report import CHANGE_TITLES, comparison_rows, summary
from vitmae_search.web.server.app import MAIN_SCRIPT

HOSTILE = "![x](http:/127.0.0.1:9/p.png)<img src=x onerror=alert(1)>"


def shares(**values: float) -> Mapping[str, Any]:
    return {kind.replace("_", "-"): {"value": value} for kind, value in values.items()}


BETTER = {
    "before": shares(crop_40=0.5, all=0.75),
    "after": shares(crop_40=0.9, all=0.95),
    "kept": True,
    "space": 7,
    "failed": 0,
}


def visit() -> AppTest:
    at = AppTest.from_file(str(MAIN_SCRIPT), default_timeout=120).run()
    at.switch_page("../pages/library.py").run()
    assert not at.exception, at.exception
    return at


def words(at: AppTest) -> str:
    return unescape(" ".join(str(block.proto.body) for block in at.get("html")))


def test_the_result_of_adapting_is_shown_by_kind_of_change(opened_copy: Library) -> None:
    with CatalogWriter.open_writer(opened_copy.folder) as writer:
        writer.start_run("adapted", "adapt", {"folder": f"/{HOSTILE}"})
        writer.finish_run("adapted", "done", {**BETTER, "after": {**BETTER["after"], HOSTILE: {}}})
    at = visit()
    text = words(at)
    assert "<td>cropped to 40 % of its area</td><td>50.0%</td><td>90.0%</td>" in text
    assert "Searches use the new space 7, which is better (75.0% found before, 95.0% after)." in text
    assert f"Adapting to /{HOSTILE}" in text
    assert not any("<img src=x" in str(block.proto.body) for block in at.get("html"))
    for kind in ("markdown", "caption", "error", "warning", "info", "success", "table", "toast"):
        assert not any("onerror" in str(block.proto) for block in at.get(kind))


def test_a_real_report_is_shown_completely(
    tmp_path: Path, write_photo: Callable[[Path, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(40):
        write_photo(tmp_path / "photos" / f"{seed}.jpg", seed)
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    with Library.open(tmp_path / "library", embedder="color_layout") as made:
        made.index(tmp_path / "photos")
    with Library.open(tmp_path / "library") as made:
        options = AdaptOptions(views=2, method="whitening")
        report = made.adapt(tmp_path / "photos", options, run_key="adapted")
        run = made.job("adapted")
    assert report.before is not None
    assert run is not None
    assert run.report is not None
    rows = comparison_rows(run.report)
    assert [row[0] for row in rows] == [CHANGE_TITLES[kind] for kind in report.before]
    assert rows[-1][1:] == (f"{report.before['all'].value:.1%}", f"{report.after['all'].value:.1%}")
    assert rows[-1][1] in summary(run.report)


def test_a_projection_that_is_no_better_changes_nothing_and_says_so() -> None:
    assert summary({**BETTER, "kept": False, "space": None}) == (
        "nothing was changed, as it was not better beyond chance (75.0% found before, 95.0% after)"
    )


@pytest.mark.parametrize("report", [{}, {"before": None}, {"before": {"all": 3}, "after": []}])
def test_an_incomplete_report_is_shown_as_far_as_possible(report: Mapping[str, object]) -> None:
    assert comparison_rows(report) == []
    assert "not better" in summary(report)


def test_adapting_begins_on_the_page_and_says_why_it_cannot(opened_copy: Library) -> None:
    at = visit()
    root = opened_copy.status().roots[0]
    at.button(key=f"vs_adapt_{root.root_id}").click().run()
    assert not at.exception
    begun = opened_copy.jobs(1)[0]
    assert begun.kind == "adapt"
    deadline = time.monotonic() + 120
    while opened_copy.jobs(1)[0].state == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    at.run()
    assert f"Adapting to {root.path} failed: " in words(at)
    assert "to learn from" in words(at)
