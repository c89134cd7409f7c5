"""pgvector: its index and what it finds under filters, and what happens when the server is gone."""

from __future__ import annotations

import numpy as np
import pytest

from vitmae_search.errors import VectorIndexError, VectorStoreUnavailable
from vitmae_search.records import AttributeFilter, VectorAttributes
from vitmae_search.vectors import ExactIndex, open_store, pgvector
from vitmae_search.vectors.remote import collection_name

COUNT, DIMENSION = 6000, 32
SHARES = (1, 2, 10, 100, 1000)
"""A filter lets one of so many vectors pass."""


@pytest.fixture
def indexed(monkeypatch, new_source, unit):
    """Vectors of which HNSW must be used, and a tenth of which is too many to be compared."""
    for bound in ("EXACT_BYTES", "FILTERED_BYTES"):
        monkeypatch.setattr(pgvector, bound, 2 * DIMENSION * COUNT // 20)
    source = new_source(DIMENSION)
    source.add(unit(COUNT, DIMENSION))
    for i in source.rows:
        words = tuple(sorted(share for share in SHARES if i % share == 0))
        source.given[i] = VectorAttributes(words, (float(i),) * 6)
    return source


@pytest.mark.parametrize("share", SHARES)
def test_recall_with_a_filter(pgvector_address, indexed, unit, tmp_path, share, record_property):
    store = open_store(pgvector_address, tmp_path)
    assert store.save(indexed)
    store.speed_up(indexed)
    assert "HNSW" in str(store.describe(indexed))
    ids = np.array([i for i in indexed.rows if i % share == 0], np.int64)
    exact = ExactIndex.from_arrays(ids, np.array([indexed.rows[i][1] for i in ids.tolist()]))
    queries, where = unit(20, DIMENSION, seed=9), AttributeFilter(any_of=((share,),))
    found = store.open(indexed).search_where(queries, 10, where, np.sort)
    recall = recall_of(found, exact.search(queries, 10))
    record_property("figures", f"pgvector, filter of 1/{share}: recall@10 {recall:.3f}")
    assert recall >= 0.97
    store.close()


def recall_of(found, best):
    """What of the best was found."""
    hits = sum(len(np.intersect1d(a.ids, b.ids)) for a, b in zip(found, best, strict=True))
    return hits / sum(len(matches) for matches in best)


@pytest.mark.parametrize("share", [1, 2])
def test_the_index_goes_on_where_its_first_pass_finds_too_little(
    postgresql, pgvector_address, indexed, unit, tmp_path, monkeypatch, share
):
    monkeypatch.setattr(pgvector, "_EF_SEARCH", 1)
    postgresql.run(f"ALTER DATABASE {pgvector_address.rsplit('/', 1)[1]} SET work_mem = '64kB'")
    store = open_store(pgvector_address, tmp_path)
    assert store.save(indexed)
    store.speed_up(indexed)
    ids = np.array([i for i in indexed.rows if i % share == 0], np.int64)
    exact = ExactIndex.from_arrays(ids, np.array([indexed.rows[i][1] for i in ids.tolist()]))
    queries, where = unit(60, DIMENSION, seed=9), AttributeFilter(any_of=((share,),) if share > 1 else ())
    best, recalls = exact.search(queries, 10), []
    database, name = pgvector.PgVectorDatabase(pgvector_address), collection_name(indexed)
    for candidates in (10, 1000):
        monkeypatch.setattr(pgvector, "_CANDIDATES", candidates)
        monkeypatch.setattr(pgvector, "_FILTERED_CANDIDATES", candidates)
        found = [database.nearest(name, query, 10, where) for query in queries]
        recalls.append(np.mean([np.isin(b.ids, ids).mean() for b, ids in zip(best, found, strict=True)]))
    database.close()
    store.close()
    assert recalls[0] < 0.9
    assert recalls[1] >= 0.95


def test_few_pass_where_the_server_expects_many(pgvector_address, indexed, unit, tmp_path):
    both = [17, 4000]
    for i in indexed.rows:
        indexed.given[i] = VectorAttributes((1, 2) if i in both else (1 + i % 2,), (0.0,) * 6)
    store = open_store(pgvector_address, tmp_path)
    assert store.save(indexed)
    store.speed_up(indexed)
    assert "HNSW" in str(store.describe(indexed))
    where = AttributeFilter(any_of=((1,), (2,)))
    [found] = store.open(indexed).search_where(unit(1, DIMENSION, seed=9), 10, where, np.sort)
    assert sorted(found.ids) == both
    store.close()


def test_an_index_is_built_in_the_memory_that_it_is_given(postgresql, pgvector_address, unit):
    said = []
    with postgresql.connect(pgvector_address.rsplit("/", 1)[1]) as connection:
        connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute(f"CREATE TABLE graph (vector halfvec({DIMENSION}))")
        with connection.cursor() as cursor, cursor.copy("COPY graph FROM STDIN") as copy:
            for row in unit(COUNT, DIMENSION).tolist():
                copy.write_row((str(row),))
        for share in (1.0, 0.6):
            # It is taken in blocks of a megabyte.
            kilobytes = 1024 + int(share * pgvector.building_bytes(COUNT, DIMENSION)) // 1024
            connection.execute(f"SET maintenance_work_mem = '{kilobytes}kB'")
            connection.execute("CREATE INDEX built ON graph USING hnsw (vector halfvec_ip_ops)")
            connection.execute("DROP INDEX built")
            assert len(said) == (share < 1)


def test_a_server_with_little_memory_for_an_index_is_told(
    pgvector_address, indexed, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(pgvector, "_BUILD_KILOBYTES", 64 << 10)
    store = open_store(pgvector_address, tmp_path)
    assert store.save(indexed)
    store.speed_up(indexed)
    assert "HNSW" in str(store.describe(indexed))
    assert "6,000 vectors is built in 68 MB of memory, and PostgreSQL may use 64" in caplog.text
    assert "set its maintenance_work_mem to '68MB'" in caplog.text
    store.close()


def test_many_more_vectors_are_added_without_the_index_which_is_then_built_again(
    pgvector_address, indexed, unit, tmp_path
):
    store = open_store(pgvector_address, tmp_path)
    assert store.save(indexed)
    store.speed_up(indexed)
    indexed.add(unit(10, DIMENSION, seed=1))
    assert store.save(indexed)
    assert "HNSW index finds" in str(store.describe(indexed))
    indexed.add(unit(COUNT, DIMENSION, seed=2))
    assert store.save(indexed)
    assert "the next `index` builds" in str(store.describe(indexed))
    store.speed_up(indexed)
    assert "HNSW index finds" in str(store.describe(indexed))
    store.close()


def test_a_killed_server_loses_nothing_and_says_what_to_do(
    postgresql, pgvector_address, new_source, unit, tmp_path, caplog
):
    source, queries = new_source(DIMENSION), unit(2, DIMENSION, seed=9)
    source.add(unit(500, DIMENSION))
    store = open_store(pgvector_address, tmp_path)
    # Other tests need no commit to be on disk; PostgreSQL's default is that it is.
    postgresql.run(f"ALTER DATABASE {pgvector_address.rsplit('/', 1)[1]} SET synchronous_commit = on")
    assert store.save(source)
    index = store.open(source)
    source.add(unit(500, DIMENSION, seed=1))
    read = source.added_since

    def killed_meanwhile(revision):
        for number, chunk in enumerate(read(revision)):
            if number == 3:
                postgresql.kill()
            yield chunk

    source.added_since = killed_meanwhile
    try:
        assert not store.save(source)
        assert "their vectors follow later" in caplog.text
        with pytest.raises(
            VectorStoreUnavailable, match=r"see that the database runs .* or search without --vectors"
        ):
            index.search(queries, 3)
        assert "cannot be used" in str(store.describe(source))
    finally:
        postgresql.start()
    del source.added_since
    assert store.describe(source).vectors == 500
    assert "1 changes behind the catalogue" in str(store.describe(source))
    assert store.save(source)
    assert store.verify(source)
    assert "secret" not in caplog.text
    store.close()


@pytest.mark.parametrize(
    "address",
    [
        "postgresql:/me:not-a-secret@half/an/address",
        "postgresql://me:not-a-secret@127.0.0.1:port/x",
        "mysql://me:not-a-secret@127.0.0.1/x",
    ],
)
def test_an_address_that_is_none_is_not_shown(address, tmp_path):
    with pytest.raises(VectorIndexError, match="address of") as caught:
        open_store(address, tmp_path)
    assert "not-a-secret" not in str(caught.value)


def test_a_wrong_password_is_not_shown(postgresql, tmp_path, source):
    address = postgresql.address("postgres", password="wrong-password")
    with pytest.raises(VectorStoreUnavailable, match="password authentication failed") as caught:
        open_store(address, tmp_path).open(source)
    assert "wrong-password" not in str(caught.value)
