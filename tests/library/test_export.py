"""`embeddings`, `export` and `export_links`: what is written is what the library has."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from vitmae_search.errors import LibraryError, StorageError
from vitmae_search.library import Library
from vitmae_search.records import SearchFilter

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def odd(library: Library, photos: Path) -> str:
    """A photo whose name is not UTF-8, and holds what CSV quotes."""
    path = os.fsdecode(os.fsencode(photos) + b'/caf\xe9, "x"\n.jpg')
    shutil.copy(photos / "odd" / "1.jpg", path)
    library.index(photos)
    return path


def test_rows_are_the_photos_vectors(library: Library, odd: str) -> None:
    found = library.embeddings()
    assert len(found) == len(found.paths) == len(found.vectors) == 13
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    row = dict(zip(found.paths, found.vectors, strict=True))
    original = next(path for path in found.paths if path.endswith("odd/1.jpg"))
    assert np.array_equal(row[odd], row[original])  # a copy
    for photo_id, vector in zip(found.photo_ids.tolist(), found.vectors, strict=True):
        for hit in library.similar(photo_id, k=20).hits:
            assert hit.score == pytest.approx(float(row[hit.photo.path] @ vector), abs=1e-5)


def test_a_filter_chooses_rows(library: Library, photos: Path) -> None:
    found = library.embeddings(SearchFilter(under=str(photos / "odd")))
    assert {Path(path).parent.name for path in found.paths} == {"odd"}
    assert len(library.embeddings(SearchFilter(under="/none"))) == 0


@pytest.mark.parametrize("suffix", ["parquet", "npz", "csv", "json"])
def test_each_format_has_all_columns_and_vectors(
    library: Library, odd: str, tmp_path: Path, suffix: str
) -> None:
    library.mark([library.photos()[0].photo_id], favourite=True, rating=3)
    expected, output = library.embeddings(), tmp_path / f"out.{suffix}"
    assert library.export(output) == 13
    paths, vectors, ratings = read(output)
    assert vectors.shape == expected.vectors.shape
    np.testing.assert_allclose(vectors, expected.vectors, atol=1e-7)
    assert paths == [
        path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if suffix == "parquet"
        else path
        for path in expected.paths
    ]
    assert ratings == [3 if digest == expected.digests[0] else 0 for digest in expected.digests]
    assert library.export(output, vectors=False, where=SearchFilter(favourite=True)) == 2
    assert not list(tmp_path.glob(".*tmp"))


def read(output: Path) -> tuple[list[str], np.ndarray, list[int]]:
    if output.suffix == ".parquet":
        table = pyarrow.parquet.read_table(output)
        vectors = np.stack(table["vector"].to_numpy())
        return table["path"].to_pylist(), vectors, table["rating"].to_pylist()
    if output.suffix == ".npz":
        with np.load(output, allow_pickle=False) as arrays:
            return arrays["path"].tolist(), arrays["vectors"], arrays["rating"].tolist()
    if output.suffix == ".json":
        rows = json.loads(output.read_text("ascii"))
    else:
        with output.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            rows = list(csv.DictReader(stream))
        for row in rows:
            row["vector"] = [float(value) for name, value in row.items() if re.fullmatch(r"v\d+", name)]
    vectors = np.array([row["vector"] for row in rows], np.float32)
    return [row["path"] for row in rows], vectors, [int(row["rating"]) for row in rows]


def test_hits_have_rank_and_score(library: Library, tmp_path: Path) -> None:
    hits = library.similar(library.photos()[0].photo_id, k=5).hits
    library.export(tmp_path / "hits.json", hits=hits)
    rows = json.loads((tmp_path / "hits.json").read_text())
    assert [(row["rank"], row["path"]) for row in rows] == [(hit.rank, hit.photo.path) for hit in hits]
    assert [row["score"] for row in rows] == pytest.approx([hit.score for hit in hits])


def test_links_lead_to_the_photos(library: Library, odd: str, tmp_path: Path) -> None:
    photos = library.photos()
    assert library.export_links(tmp_path / "new" / "links", photos) == 13
    links = sorted((tmp_path / "new" / "links").iterdir(), key=os.fsencode)
    assert [os.readlink(link) for link in links] == [photo.path for photo in photos]
    assert links[0].name.startswith("01 ")
    with pytest.raises(LibraryError, match="not empty"):
        library.export_links(tmp_path / "new" / "links", photos)


def test_what_cannot_be_written_is_said(library: Library, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match=r"should end in \.parquet, \.npz, \.csv, \.json"):
        library.export(tmp_path / "out.xlsx")
    with pytest.raises(StorageError, match="cannot be written"):
        library.export(tmp_path / "no folder" / "out.csv")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        library.export_links(tmp_path / "file", library.photos())


def test_places_are_written_only_where_they_are_asked_for(library: Library, tmp_path: Path) -> None:
    for places in (False, True):
        library.export(tmp_path / "all.json", vectors=False, places=places)
        rows = json.loads((tmp_path / "all.json").read_text())
        assert {"latitude" in row and "longitude" in row for row in rows} == {places}


def test_only_an_export_and_a_cluster_load_pyarrow() -> None:
    package = ROOT / "vitmae_search"
    texts = {path.relative_to(package).as_posix(): path.read_text("utf-8") for path in package.rglob("*.py")}
    using = {path for path, text in texts.items() if "pyarrow" in text}
    assert using == {"library/export.py", "indexing/cluster/reader.py", "indexing/cluster/worker.py"}
    assert not any(re.search(r"^(import|from) pyarrow", texts[path], re.M) for path in using)


def test_the_example_of_the_page_runs(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With scikit-learn and pandas, as `docs/exporting.md` shows them."""
    page = (ROOT / "docs/exporting.md").read_text("utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S))
    names: dict[str, object] = {}
    monkeypatch.chdir(tmp_path)
    exec(code.replace('"my-library"', repr(str(library.folder))), names)
    assert len(names["clusters"]) == library.count_photos()
    assert len(names["unusual"]) == 5
    assert len(names["frame"]) == library.count_photos()
