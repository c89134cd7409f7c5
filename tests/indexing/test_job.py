"""Progress: reported at each step, and written to the catalogue once a second."""

import pytest

from vitmae_search.indexing import job
from vitmae_search.indexing.job import ProgressReporter


def test_progress_is_written_to_the_catalogue_once_a_second(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(job.time, "monotonic", lambda: now[0])
    shown, writes = [], []
    reporter = ProgressReporter(shown.append, writes.append)
    reporter.report("scanning", 0)
    for step in range(1, 101):
        now[0] += 0.05
        reporter.report("indexing", step, 100, current=f"{step}.jpg")
    reporter.report("done", 100, 100)
    assert len(shown) == 102
    assert [written["phase"] for written in writes][:2] == ["scanning", "indexing"]
    assert writes[-1]["phase"] == "done"
    assert len(writes) == 7
    assert shown[100].photos_per_second == pytest.approx(20)
    assert reporter.seconds == pytest.approx(5)
