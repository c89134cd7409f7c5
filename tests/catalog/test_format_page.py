"""`docs/library-format.md` says what is in a library, and its examples read one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.dialects import sqlite

from vitmae_search.catalog import Catalog, migrations
from vitmae_search.catalog.schema import APPLICATION_ID, Table
from vitmae_search.library import Library
from vitmae_search.vectors import file as index_files

pytestmark = pytest.mark.sqlite_only("reads the file as the documentation does")

PAGE = (Path(__file__).resolve().parents[2] / "docs/library-format.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
TYPES = {
    "INTEGER": "integer",
    "BIGINT": "integer",
    "REAL": "real",
    "BLOB": "blob",
    "VARCHAR": "text",
    "BOOLEAN": "boolean",
    "DATETIME": "time",
    "JSON": "JSON",
}


@pytest.fixture
def library(tmp_path, real_photos) -> Path:
    """Nine real photos, a copy, and one that is not on disk any more."""
    photos, folder = tmp_path / "photos", tmp_path / "library"
    photos.mkdir()
    for name, path in real_photos.items():
        shutil.copy(path, photos / f"{name}{path.suffix}")
    shutil.copy(photos / "chelsea.png", photos / "a copy.png")
    with Library.open(folder, embedder="color_layout") as opened:
        opened.index(photos)
        (photos / "coins.png").unlink()
        opened.index(photos)
    return folder


@pytest.fixture
def printed(library, capsys) -> tuple[dict[str, object], list[str]]:
    """Run the page's examples on the library; return their variables, and the lines that they print."""
    code, count = re.subn(r"^library = .*$", "library = LIBRARY", "\n".join(BLOCKS), flags=re.M)
    assert count == 1
    names: dict[str, object] = {"LIBRARY": library}
    exec(code, names)
    return names, capsys.readouterr().out.splitlines()


def test_the_example_finds_what_a_search_finds(library, printed):
    names, lines = printed
    with Library.open(library) as opened:
        hits = opened.search(names["paths"][0], k=5).hits
        shown = [f"{hit.score:.3f}  {hit.photo.path}" for hit in hits]
        assert lines == shown
        assert len(names["paths"]) == len(names["rows"]) == 8, (
            "a copy counts once, a missing photo not at all"
        )


def test_the_example_reads_the_vectors_of_an_index_file(library, printed):
    names, _ = printed
    with Catalog.open(library) as catalog:
        space = catalog.current_space()
        assert len(names["ids"]) == 9
        assert np.array_equal(names["read"], catalog.vectors(space.space_id, names["ids"]))
        origin = names["header"]["origin"]
        assert (origin["key"], origin["revision"]) == (space.fingerprint, space.revision)
        assert origin["identity"] == catalog.vector_source(space.space_id).revision_identity(space.revision)


def test_every_column_is_described():
    described = {}
    for name, text in re.findall(r"^### (\w+)\n(.*?)(?=^##)", PAGE, re.M | re.S):
        described[name] = {
            column: (kind.removesuffix(" or NULL"), kind.endswith(" or NULL"))
            for column, kind in re.findall(r"^\| `(\w+)` \| ([\w ]+) \|", text, re.M)
        }
    existing = {
        table.name: {
            column.name: (TYPES[str(column.type.compile(dialect=sqlite.dialect()))], bool(column.nullable))
            for column in table.columns
        }
        for table in Table.metadata.tables.values()
    }
    assert described == existing


def test_versions_are_the_current_ones():
    assert f"version {migrations.NEWEST} of its tables" in PAGE
    assert f"assert version == {migrations.NEWEST}," in PAGE
    versions = re.search(r"^\| version \|.*?^\n", PAGE, re.M | re.S)[0]
    assert [int(number) for number in re.findall(r"^\| (\d+) \|", versions, re.M)] == list(
        range(1, migrations.NEWEST + 1)
    )
    assert f"`0x{APPLICATION_ID:X}`".replace("0X", "0x") in PAGE
    for kind in (index_files.VECTORS, index_files.PAYLOAD):
        assert f"`{kind.decode()}`" in PAGE
