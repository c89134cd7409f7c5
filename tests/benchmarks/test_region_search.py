"""The benchmark of parts runs on a few photos, and its cases are what it says."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.region_search import AREAS, main, make_cases, overlap
from vitmae_search.records import Box


@pytest.fixture
def folder(tmp_path: Path, real_photos: Mapping[str, Path]) -> Path:
    """Twelve photos: some are there twice."""
    (tmp_path / "photos").mkdir()
    for number in range(2):
        for name in ("astronaut", "chelsea", "coffee", "rocket", "china", "flower"):
            shutil.copy(real_photos[name], tmp_path / "photos" / f"{name}-{number}{real_photos[name].suffix}")
    return tmp_path / "photos"


def test_cases_have_their_targets(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    cases = list(make_cases(sorted(folder.iterdir()), tmp_path / "made", 1))
    assert [case.kind for case in cases] == ["detail, 1/4", "object, 1/4", "detail, 1/9", "object, 1/9"]
    assert all((tmp_path / "made" / case.target).is_file() for case in cases)
    for case, area in zip(cases, (value for value in AREAS.values() for _ in range(2)), strict=True):
        assert 0.5 * area < case.box.width * case.box.height < 1.7 * area
    assert overlap(Box(0, 0, 0.5, 0.5), Box(0.25, 0, 0.5, 0.5)) == pytest.approx(1 / 3)


def test_it_prints_its_tables(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(folder), "--queries", "1", "--among", "4"])
    shown = capsys.readouterr().out
    assert shown.count("| patches |") == 4
    assert "| 4 thumbnails |" in shown
