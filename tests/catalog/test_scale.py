"""200,000 photos: plain rows, one statement a walk, thousands of rows a statement."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import event

from vitmae_search.catalog import Catalog, CatalogWriter
from vitmae_search.records import SearchFilter

pytestmark = pytest.mark.sqlite_only("fills SQLite's file with its own statements")

PHOTOS = 200_000

_NUMBERS = f"""
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {PHOTOS})
"""
FILL = (
    """
    INSERT INTO contents (content_id, digest, width, height, format, camera)
    """
    + _NUMBERS
    + "SELECT n, printf('%064x', n), 1, 1, 'JPEG', iif(n % 1000, 'Nikon', 'Canon') FROM numbers",
    "INSERT INTO photos (photo_id, path, size, mtime_ns, device, content_id, missing, moment)"
    + _NUMBERS
    + "SELECT n, CAST(printf('/p/%d/%d.jpg', n % 100, n) AS BLOB), n, n, 1, n, n % 10 = 0, n FROM numbers",
    "INSERT INTO embeddings (content_id, space_id, revision, vector)"
    + _NUMBERS
    + "SELECT n, 1, 1, x'0000803f' FROM numbers",
)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large") / "library"
    with CatalogWriter.open_writer(folder) as writer:
        writer.ensure_space(
            fingerprint="f", plugin="p", model="m", dimension=1, decode="scaled",
            options={}, identity={}, provenance={},
        )  # fmt: skip
        with writer._transaction() as connection:
            for statement in FILL:
                connection.exec_driver_sql(statement)
    return folder


@pytest.fixture
def statements(large):
    """What a reader of the large library sends to SQLite."""
    with Catalog.open(large) as reader:
        sent: list[str] = []
        event.listen(
            reader._database._engine,
            "before_cursor_execute",
            lambda conn, cursor, statement, *rest: sent.append(statement),
        )
        yield reader, sent


def test_known_files_is_one_statement_that_streams(statements):
    reader, sent = statements
    walk = reader.known_files("/p", 1)
    first = next(walk)
    assert first.stamp.path == "/p/0/100.jpg"
    assert sum(1 for _ in walk) == PHOTOS - 1
    assert len([s for s in sent if "FROM photos" in s]) == 1


def test_ids_come_as_one_array(statements):
    reader, sent = statements
    ids = reader.searchable_ids(1)
    assert (ids.dtype, len(ids)) == (np.int64, PHOTOS * 9 // 10)
    assert bool((np.diff(ids) > 0).all())
    assert len(reader.hidden_ids(1)) == PHOTOS // 10
    assert len(reader.searchable_ids(1, SearchFilter(under="/p/7"))) == PHOTOS // 100
    assert len(reader.searchable_ids(1, SearchFilter(camera="CANON"))) == 0  # they are all missing
    assert len([s for s in sent if "FROM embeddings" in s]) == 4


def test_a_source_gives_them_all_in_chunks(statements):
    reader, _ = statements
    sizes = [len(ids) for ids, _ in reader.vector_source(1).added_since(0)]
    assert sum(sizes) == PHOTOS
    assert max(sizes) <= 4096


def test_many_ids_fit_into_one_question(statements):
    reader, _ = statements
    assert len(reader.photos_of(np.arange(1, 5_001))) == 5_000
    assert reader.vectors(1, np.arange(1, 40_001)).shape == (40_000, 1)


def test_a_batch_is_a_fixed_number_of_statements(writer, space, make):
    """However many photos it has: rows go in by `executemany`."""
    sent: list[str] = []
    event.listen(
        writer._database._write_engine,
        "before_cursor_execute",
        lambda conn, cursor, statement, *rest: sent.append(statement),
    )
    writer.record_batch(space, [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(4)], [make.failure("/x")])
    few, sent[:] = len(sent), []
    writer.record_batch(space, [make.item(f"/q/{n}.jpg", f"v{n}") for n in range(400)], [make.failure("/y")])
    assert len(sent) == few < 25
