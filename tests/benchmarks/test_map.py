"""The benchmark of the map, on a few photos and without the page."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from benchmarks.large_library import make_library, make_photos
from benchmarks.map import layout_rows


def test_the_times_are_listed(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 110)
    make_library(tmp_path, "color_layout")
    tsne = 10 if importlib.util.find_spec("openTSNE") is not None else 0
    rows = dict(layout_rows(tmp_path / "library", tsne=tsne))
    assert "PCA of 10 vectors of 268" in rows
    assert "100 new photos placed, PCA" in rows
    assert ("t-SNE of 10 vectors of 268" in rows) == bool(tsne)
