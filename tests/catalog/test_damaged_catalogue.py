"""What is damaged, full or unwritable is said in a sentence."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from vitmae_search.catalog import Catalog, CatalogWriter, writable_sqlite
from vitmae_search.catalog.sqlite import autocommit_connection
from vitmae_search.errors import LibraryDamaged, LibraryEmpty, StorageError, VitmaeSearchError

pytestmark = pytest.mark.sqlite_only("damages SQLite's file")

OPENERS = pytest.mark.parametrize(
    "open_catalog", [Catalog.open, CatalogWriter.open_writer], ids=["reader", "writer"]
)


@pytest.fixture
def file(folder: Path, make) -> Path:
    with CatalogWriter.open_writer(folder) as writer:
        space = make.space(writer).space_id
        writer.record_batch(space, [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(300)])
    return folder / "catalogue.sqlite3"


def use_everything(catalog: Catalog) -> None:
    with catalog:
        catalog.photos()
        list(catalog.known_files("/p", 1))
        list(catalog.vector_source(1).added_since(0))
        catalog.photos_of(catalog.searchable_ids(1))


@OPENERS
def test_random_bytes(folder, open_catalog):
    folder.mkdir()
    (folder / "catalogue.sqlite3").write_bytes(random.Random(1).randbytes(20_000))
    with pytest.raises(LibraryDamaged, match=r"catalogue\.sqlite3 is damaged .*photos are untouched"):
        open_catalog(folder)


@OPENERS
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.5, 0.97])
def test_truncated(file, open_catalog, kept):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(LibraryDamaged, match="is damaged"):
        use_everything(open_catalog(file.parent))


@OPENERS
def test_random_bytes_in_the_middle(file, open_catalog, tmp_path):
    """Whatever is met, nothing but a sentence comes of it; and `check` finds it."""
    content = bytearray(file.read_bytes())
    generator = random.Random(2)
    CatalogWriter.open_writer(tmp_path / "empty").close()
    schema = (tmp_path / "empty" / file.name).stat().st_size // 4096  # without which there is no looking
    for page in range(schema, len(content) // 4096, 2):
        content[page * 4096 : page * 4096 + 4096] = generator.randbytes(4096)
    file.write_bytes(content)
    with pytest.raises(LibraryDamaged):
        use_everything(open_catalog(file.parent))
    with Catalog.open(file.parent) as catalog:
        assert catalog.check()


@pytest.mark.parametrize("seed", range(12))
def test_any_damage_is_met_with_our_own_errors(file, seed):
    content = bytearray(file.read_bytes())
    generator = random.Random(seed)
    for _ in range(40):
        content[generator.randrange(len(content))] = generator.randrange(256)
    file.write_bytes(content)
    try:
        with Catalog.open(file.parent) as catalog:
            catalog.check()
    except VitmaeSearchError:
        pass


@OPENERS
def test_a_file_of_no_bytes_is_no_library_yet(folder, open_catalog):
    folder.mkdir()
    (folder / "catalogue.sqlite3").touch()
    if open_catalog == Catalog.open:
        with pytest.raises(LibraryEmpty):
            open_catalog(folder)
    else:
        open_catalog(folder).close()


@OPENERS
def test_a_folder_that_cannot_even_be_looked_for(tmp_path, open_catalog):
    with pytest.raises(StorageError, match="cannot be"):
        open_catalog(tmp_path / ("long" * 100))


# The disk ---------------------------------------------------------------------------------------------


def test_a_full_disk_keeps_what_was_finished(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat")])
    with writer._transaction() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
    many = [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(500)]
    with pytest.raises(StorageError, match=r"disk is full.*run the same command again"):
        writer.record_batch(space, many)
    assert writer.count_photos() == 1
    assert writer.space(space).revision == 1
    assert writer.check() == []
    with writer._transaction() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    writer.record_batch(space, many)  # the same writer goes on once there is room
    assert writer.count_photos() == 501
    assert writer.check() == []


def test_a_full_disk_at_the_very_start(folder, monkeypatch):
    def no_room(connection, version):
        with connection.begin():
            connection.exec_driver_sql("PRAGMA max_page_count = 3")
        return migrate(connection, version)

    migrate = writable_sqlite.migrate
    monkeypatch.setattr(writable_sqlite, "migrate", no_room)
    with pytest.raises(StorageError, match="disk is full"):
        CatalogWriter.open_writer(folder)
    monkeypatch.undo()
    CatalogWriter.open_writer(folder).close()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(file):
    file.parent.chmod(0o555)
    try:
        with pytest.raises(StorageError, match="cannot be written"):
            CatalogWriter.open_writer(file.parent)
    finally:
        file.parent.chmod(0o755)


# check ---------------------------------------------------------------------------------------------------


def test_a_sound_catalogue(file):
    with Catalog.open(file.parent) as catalog:
        assert catalog.check() == []


def blob(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


WRONGS = pytest.mark.parametrize(
    ("statement", "values", "sentence"),
    [
        ("UPDATE embeddings SET vector = ? WHERE embedding_id = 3", [b"\0" * 5],
         "1 vector (ids 3) whose dimension"),
        ("UPDATE embeddings SET vector = ? WHERE embedding_id < 9", [b""],
         "8 vectors (ids 1, 2, 3, 4, 5, …)"),
        ("UPDATE embeddings SET vector = ? WHERE embedding_id = 4",
         [blob(1, 0, 0, 0, 0, 0, 0, float("nan"))], "1 vector (ids 4) with a value that is not finite"),
        ("UPDATE embeddings SET vector = ? WHERE embedding_id = 4",
         [blob(1, 0, 0, 0, 0, 0, 0, float("inf"))], "1 vector (ids 4) with a value that is not finite"),
        ("UPDATE embeddings SET vector = ? WHERE embedding_id = 5",
         [blob(1, 1, 0, 0, 0, 0, 0, 0)], "1 vector (ids 5) whose norm is not 1"),
        ("DELETE FROM contents WHERE content_id = 6", [], "1 photo (ids 6) without content"),
        ("DELETE FROM contents WHERE content_id = 6", [], "points to a row of contents that is not there"),
        ("DELETE FROM photos WHERE photo_id = 7", [], "1 content (ids 7) without a photo"),
        ("UPDATE spaces SET current = 0", [], "No space is the current one"),
        ("UPDATE spaces SET revision = 0", [], "Space 1 is at revision 0 and has a vector of 1"),
        ("UPDATE spaces SET vectors = 7", [], "Space 1 says that it has 7 vectors, and it has 300"),
        ("INSERT INTO tombstones VALUES (8, 1, 1)", [], "1 vector (ids 8) both deleted and there"),
    ],
)  # fmt: skip


def make_wrong(writer, statement, values):
    with autocommit_connection(writer._database._write_engine) as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.exec_driver_sql(statement, tuple(values))
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")


@WRONGS
def test_check_finds(file, statement, values, sentence):
    with CatalogWriter.open_writer(file.parent) as writer:
        make_wrong(writer, statement, values)
        assert any(sentence in problem for problem in writer.check()), writer.check()


@WRONGS
def test_repair_mends_what_check_finds(file, make, statement, values, sentence):
    with CatalogWriter.open_writer(file.parent) as writer:
        source = writer.vector_source(1)
        before = {number: vector.tobytes() for ids, vectors in source.added_since(0)
                  for number, vector in zip(ids.tolist(), vectors, strict=True)}  # fmt: skip
        at = source.revision()
        make_wrong(writer, statement, values)
        found = writer.check()
        assert writer.repair() == [f"Mended: {problem}" for problem in found]
        assert writer.check() == []
        assert writer.repair() == []
        # An index that follows ends with what is there, whatever was wrong.
        for number in source.removed_since(min(at, source.revision() - 1)).tolist():
            before.pop(number, None)
        left = [number for ids, _ in source.added_since(0) for number in ids.tolist()]
        assert sorted(before) == left
        assert len(left) >= 290
        writer.record_batch(1, [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(300)])
        assert len(writer.searchable_ids(1)) == 300
        assert writer.check() == []


def test_damaged_pages_are_beyond_repair(file):
    content = bytearray(file.read_bytes())
    pages = len(content) // 4096
    content[(pages - 2) * 4096 :] = random.Random(3).randbytes(2 * 4096)
    file.write_bytes(content)
    with CatalogWriter.open_writer(file.parent) as writer:
        found = writer.check()
        assert found
        assert writer.repair() == []
        assert writer.check() == found


def test_check_finds_an_index_that_disagrees(file):
    with CatalogWriter.open_writer(file.parent) as writer, writer._transaction() as connection:
        connection.exec_driver_sql("PRAGMA writable_schema = ON")
        connection.exec_driver_sql(
            "UPDATE sqlite_master SET sql = replace(sql, 'content_id, missing', 'missing, content_id') "
            "WHERE name = 'photos_content'"
        )
    with Catalog.open(file.parent) as catalog:
        assert any("integrity check" in problem for problem in catalog.check())
