"""The benchmark of painting a mask, with one stroke."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("playwright")
from benchmarks.page_load import CHROMIUM
from benchmarks.painting import measure

pytestmark = pytest.mark.browser


@pytest.mark.skipif(not shutil.which(CHROMIUM), reason="Chromium is not installed")
def test_the_times_are_listed_and_the_page_stays_as_it_is(tmp_path: Path) -> None:
    rows, note = measure(tmp_path, strokes=2)
    assert [row[1] for row in rows] == ["its squares flipped", "the guess drawn", "the guess drawn"]
    assert note == "Least opacity 1, scrolled by 0 pixels."
