"""A catalogue's file is copied into a database on a PostgreSQL server, with all that it holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import select

from vitmae_search.catalog import CatalogWriter
from vitmae_search.catalog.schema import Table
from vitmae_search.errors import LibraryError
from vitmae_search.records import SavedSearch, SearchFilter

pytestmark = pytest.mark.sqlite_only("copies one")


@pytest.fixture
def database(postgresql) -> Iterator[str]:
    name = postgresql.create()
    yield postgresql.address(name)
    postgresql.drop(name)


@pytest.fixture
def filled(writer: CatalogWriter, make, space) -> CatalogWriter:
    """Something in each table that a file uses."""
    writer.add_root("/p", 2**63 + 5)
    names = ["cat", "dog", "owl \udce9", "gone"]
    items = [make.item(f"/p/{name}.jpg", name, camera="A \0 camera", mtime_ns=2**70) for name in names]
    writer.record_batch(space, items, [make.failure("/p/bad.jpg")])
    ids = [make.photo_at(writer, f"/p/{name}.jpg").photo_id for name in names]
    writer.remove_photos(ids[3:])
    writer.record_tags(
        writer.ensure_classifier(fingerprint="f", source="s", model="m"),
        [(writer.photo(ids[0]).content_id, [("red", 0.75)])],
    )
    writer.mark(ids[:1], {"favourite": True}, "mark")
    writer.add_to_album("best", ids[:2])
    writer.decide_pairs(ids[0], ids[1:2], "different", "decide")
    writer.save_search(SavedSearch("cats", where=SearchFilter(camera="A")))
    writer.start_run("0a1b", "index", {"folders": ["/p"]})
    writer.finish_run("0a1b", "done", {"added": 3})
    return writer


def everything(catalog: CatalogWriter) -> dict[str, list[tuple[object, ...]]]:
    with catalog._database.read_transaction() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in Table.metadata.sorted_tables
        }


def test_all_is_copied_with_its_ids_which_are_not_used_again(filled, database, make, space, tmp_path):
    before = everything(filled)
    empty = {name for name, rows in before.items() if not rows}
    assert empty == {"leases", "claims", "shared_values"}
    rows = filled.copy_to(database)
    assert rows == {name: len(rows) for name, rows in before.items()}
    with CatalogWriter.open_writer(tmp_path / "other", database) as copy:
        after = everything(copy)
        cameras = [row[6] for row in after["contents"]]
        assert cameras == ["A  camera"] * 3, "NUL is not stored there"
        assert str(after) == str(before).replace("A \\x00 camera", "A  camera")
        copy.record_batch(space, [make.item("/p/new.jpg", "new")])
        assert make.photo_at(copy, "/p/new.jpg").photo_id == 5, "4 was given away"
        assert copy.undo() is not None
        assert copy.check() == []
        with pytest.raises(LibraryError, match="has a catalogue already"):
            filled.copy_to(database)
    assert everything(filled) == before
