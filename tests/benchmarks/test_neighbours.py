"""The benchmark of neighbours, on a few vectors."""

from __future__ import annotations

from pathlib import Path

from benchmarks.neighbours import fill, neighbour_rows


def test_the_times_are_listed(tmp_path: Path) -> None:
    fill(tmp_path, 60, 64)
    rows = dict(neighbour_rows(tmp_path, 3))
    assert list(rows) == [
        "the first photo",
        "each of 3 further photos",
        "all photos, after that",
        "memory at most",
    ]
