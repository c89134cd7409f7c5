"""A value that cannot be is one sentence wherever it is read, and `check` names and mends it."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from vitmae_search.catalog import Catalog, CatalogWriter
from vitmae_search.catalog.odd_values import odd_values
from vitmae_search.errors import VitmaeSearchError
from vitmae_search.records import SearchFilter

pytestmark = pytest.mark.sqlite_only("PostgreSQL stores values of the column's type alone")

ODD = {
    "a word for options": ("spaces", "options", "'x'"),
    "a list for options": ("spaces", "options", "'[1'"),
    "a number for an identity": ("spaces", "identity", "x'ff'"),
    "no UTF-8 in a model": ("spaces", "model", "CAST(x'ff80' AS TEXT)"),
    "a date of a space that is none": ("spaces", "created_at", "'yesterday'"),
    "a number for a vector": ("embeddings", "vector", "5"),
    "text for a vector": ("embeddings", "vector", "'abc'"),
    "a revision that is none": ("embeddings", "revision", "'new'"),
    "a date that is none": ("contents", "taken_at", "'31 February'"),
    "a digest that is not UTF-8": ("contents", "digest", "CAST(x'ff80' AS TEXT)"),
    "a blob for a digest": ("contents", "digest", "x'00'"),
    "a width that is none": ("contents", "width", "'wide'"),
    "a place that is none": ("contents", "latitude", "'north'"),
    "text for a path": ("photos", "path", "'/p/a.jpg'"),
    "a number for a path": ("photos", "path", "7"),
    "a size that is none": ("photos", "size", "'much'"),
    "a flag that is none": ("photos", "missing", "7"),
    "a reason that is none": ("failures", "reason", "x'ff'"),
    "a tag that is none": ("tags", "tag", "x'ff'"),
    "a confidence that is none": ("tags", "confidence", "'sure'"),
    "a root that is none": ("roots", "path", "'/p'"),
}


@pytest.fixture
def full(folder: Path, make) -> Path:
    """A library with something in every table that is read."""
    with CatalogWriter.open_writer(folder) as writer:
        space = make.space(writer).space_id
        writer.add_root("/p", 7)
        items = [make.item("/p/a.jpg", "cat", taken_at=None), make.item("/p/b.jpg", "dog")]
        writer.record_batch(space, items, failures=[make.failure("/p/bad.jpg")])
        classifier = writer.ensure_classifier(fingerprint="f", source="/models/pets", model="pets")
        writer.record_tags(classifier, [(1, [("cat", 0.5)])])
    return folder


def change(folder: Path, table: str, column: str, value: str) -> None:
    raw = sqlite3.connect(folder / "catalogue.sqlite3")
    raw.execute("PRAGMA ignore_check_constraints = ON")
    changed = raw.execute(f"UPDATE {table} SET {column} = {value} WHERE rowid = 1" if table != "tags"
                          else f"UPDATE {table} SET {column} = {value}")  # fmt: skip
    assert changed.rowcount == 1
    raw.commit()
    raw.close()


def ask_everything(folder: Path) -> None:
    """Every question of a reader; each may end in a sentence."""
    questions = [
        lambda c: c.status(),
        lambda c: c.photos(missing=None),
        lambda c: c.photos(SearchFilter(camera="x")),
        lambda c: c.photo(1),
        lambda c: c.spaces(),
        lambda c: c.vector(1, 1),
        lambda c: list(c.vector_source(1).added_since(0)),
        lambda c: list(c.known_files("/p", 1)),
        lambda c: c.failures(1),
        lambda c: c.roots(),
        lambda c: c.tag_counts(),
    ]
    for question in questions:
        with suppress(VitmaeSearchError), Catalog.open(folder) as catalog:
            question(catalog)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_value_is_a_sentence_and_is_named(full: Path, name: str) -> None:
    table, column, value = ODD[name]
    change(full, table, column, value)
    ask_everything(full)
    with Catalog.open(full) as catalog:
        problems = catalog.check()
    assert any(f"{table}, row 1" in problem and f"{column} is" in problem for problem in problems)


@pytest.mark.parametrize("name", [name for name, (table, *_) in ODD.items() if table != "spaces"])
def test_a_row_with_an_odd_value_is_made_again(full: Path, make, name: str) -> None:
    change(full, *ODD[name])
    with CatalogWriter.open_writer(full) as writer:
        assert writer.repair()
        assert writer.check() == []
        writer.record_batch(1, [make.item("/p/a.jpg", "cat"), make.item("/p/b.jpg", "dog")])
        assert writer.count_photos() == 2
        assert writer.check() == []


def test_a_sound_library_has_no_odd_value(full: Path) -> None:
    with Catalog.open(full) as catalog, catalog._database.read_transaction() as connection:
        assert list(odd_values(connection)) == []


def test_an_error_of_our_own_is_not_blamed_on_the_file(full: Path) -> None:
    with (
        pytest.raises(ValueError, match="our own"),
        Catalog.open(full) as catalog,
        catalog._database.read_transaction(),
    ):
        raise ValueError("our own")
