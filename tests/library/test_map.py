"""The map of a library: what is on it, what stays, its groups, areas and files."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from vitmae_search.cli.main import run
from vitmae_search.errors import LibraryError
from vitmae_search.library import Library
from vitmae_search.records import PhotoMap, SearchFilter

needs_tsne = pytest.mark.skipif(
    importlib.util.find_spec("openTSNE") is None, reason="openTSNE is not installed"
)
METHODS = ["pca", pytest.param("tsne", marks=needs_tsne)]


def where_they_are(shown: PhotoMap) -> dict[int, tuple[float, float]]:
    return dict(zip(shown.photo_ids.tolist(), map(tuple, shown.coordinates.tolist()), strict=True))


def files(library: Library, method: str) -> list[Path]:
    return sorted((library.folder / "vectors").glob(f"*.{method}"))


@pytest.mark.parametrize("method", METHODS)
def test_new_photos_are_placed_and_no_other_one_moves(library, photos, write_photo, method):
    if method == "tsne":
        library.make_map("tsne")
    before = where_they_are(library.map(method=method))
    assert len(before) == 12
    write_photo(photos / "even" / "new.jpg", 99)
    (photos / "odd" / "1.jpg").unlink()
    gone = library.photo_ids([photos / "odd" / "1.jpg"])[0]
    library.index(photos)
    after = library.map(method=method)
    (new,) = library.photo_ids([photos / "even" / "new.jpg"])
    moved = where_they_are(after)
    assert set(moved) == set(before) - {gone} | {new}
    assert all(moved[number] == before[number] for number in set(before) - {gone})
    assert after.placed == 1
    with Library.open(library.folder) as again:  # from its file
        assert where_they_are(again.map(method=method)) == moved
    if method == "tsne":
        library.make_map("tsne")
        assert library.map(method="tsne").placed == 0


def test_the_map_is_a_cache(library, caplog):
    before = where_they_are(library.map())
    (file,) = files(library, "pca")
    assert library.has_map("pca")
    file.unlink()
    assert not library.has_map("pca")
    assert where_they_are(library.map()) == before
    data = bytearray(files(library, "pca")[0].read_bytes())
    data[-7] ^= 1
    file.write_bytes(data)
    with Library.open(library.folder) as other:
        assert where_they_are(other.map()) == before
    assert "The map is made again" in caplog.text


def test_a_filter_leaves_photos_where_they_are(library, photos):
    everything = where_they_are(library.map())
    odd = library.map(SearchFilter(under=str(photos / "odd")))
    assert len(odd) == 6
    assert where_they_are(odd).items() <= everything.items()
    assert sum(cluster.size for cluster in odd.clusters) == 6
    assert np.bincount(odd.cluster_of).tolist() == [cluster.size for cluster in odd.clusters]
    for place, cluster in enumerate(odd.clusters):
        row = odd.photo_ids.tolist().index(cluster.photo_id)
        assert odd.cluster_of[row] == place
        assert odd.paths[row] == cluster.path


def test_groups(library, photos):
    shown = library.map()
    folders = library.map_groups(shown, "folder")
    assert folders.names == ("even", "odd")
    assert [folders.names[g] for g in folders.group_of] == [Path(p).parent.name for p in shown.paths]
    times = {path: datetime(2003 + 2 * n, 5, 1).timestamp() for n, path in enumerate(shown.paths[:8])}
    for path, moment in times.items():
        os.utime(path, (moment, moment))
    library.index(photos)
    dates = library.map_groups(library.map(), "date")
    assert dates.ordered
    assert dates.names[0] == "2003–2004"
    assert len(dates.names) == 12
    assert library.map_groups(shown, "tag").group_of.tolist() == [-1] * 12
    assert library.map_groups(shown, "cluster").names == tuple(Path(c.path).name for c in shown.clusters)


def test_an_area_and_a_search_within_it(library):
    shown = library.map()
    x = shown.coordinates[:, 0]
    left = library.map_area(shown, [(-1, -1), (0.5, -1), (0.5, 2), (-1, 2)])
    assert set(left.tolist()) == set(shown.photo_ids[x < 0.5].tolist())
    where = SearchFilter(photo_ids=frozenset(left.tolist()))
    assert library.count_photos(where) == len(left)
    found = library.similar(int(left[0]), where=where, stacks=False).hits
    assert {hit.photo.photo_id for hit in found} == set(left.tolist()) - {int(left[0])}
    with pytest.raises(LibraryError, match="three corners"):
        library.map_area(shown, [(0, 0), (1, 1)])


def test_there_is_no_tsne_map_before_it_is_made(library):
    with pytest.raises(LibraryError, match="vitmae-search map --method tsne"):
        library.map(method="tsne")


def test_the_extra_is_named_where_it_is_missing(library, monkeypatch):
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    with pytest.raises(LibraryError, match=r"pip install 'vitmae-search\[map\]'"):
        library.make_map("tsne")


@needs_tsne
def test_a_cancelled_map_leaves_the_old_one(library):
    library.make_map("tsne")
    before = where_they_are(library.map(method="tsne"))
    report = library.make_map("tsne", cancelled=lambda: True, run_key="ab")
    assert report.interrupted
    assert library.job("ab").state == "cancelled"
    assert where_they_are(library.map(method="tsne")) == before


@needs_tsne
def test_a_job_makes_the_map_in_a_child(library):
    key = library.start_map_job("tsne")
    deadline = time.monotonic() + 60
    while library.job(key).state == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert library.job(key).state == "done", library.job(key).error
    assert library.job(key).report["points"] == 12
    assert len(library.map(method="tsne")) == 12


def test_the_command(library, capsys, tmp_path):
    where = ["--library", str(library.folder)]
    assert run(["map", *where, "--json", "--csv", str(tmp_path / "map.csv")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["photos"] == len(told["points"]) == 12
    assert (told["method"], told["placed"]) == ("pca", 0)
    with (tmp_path / "map.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(int(row["photo_id"]), float(row["x"])) for row in rows] == [
        (point["photo_id"], point["x"]) for point in told["points"]
    ]
    assert run(["map", *where]) == 0
    assert "12 photos on the pca map" in capsys.readouterr().out
