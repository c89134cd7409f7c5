"""Queries that scan a whole table are cached until the next commit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sqlalchemy import event

from vitmae_search.catalog import Catalog, one_version, postgresql
from vitmae_search.records import SearchFilter

QUERIES = ["status", "spaces", "current_space", "tag_counts"]


@pytest.fixture
def filled(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "a"), make.item("/p/b.jpg", "b")])
    classifier = writer.ensure_classifier(fingerprint="f", source="s", model="m")
    content = make.photo_at(writer, "/p/a.jpg").content_id
    writer.record_tags(classifier, [(content, [("red", 0.9)])])
    return writer


@pytest.fixture
def reader(filled, folder, address):
    with Catalog.open(folder, address) as catalog:
        yield catalog


def record_statements(reader: Catalog) -> list[str]:
    """Return a list that is filled with the statements that the reader sends from now on."""
    sent: list[str] = []
    event.listen(
        reader._database._engine,
        "before_cursor_execute",
        lambda conn, cursor, statement, *rest: sent.append(statement),
    )
    return sent


@pytest.mark.parametrize("query", QUERIES)
def test_a_cached_result_reads_no_table(reader, query):
    first = getattr(reader, query)()
    sent = record_statements(reader)
    assert getattr(reader, query)() == first
    assert [statement for statement in sent if "FROM" in statement] == []


def test_after_a_commit_all_is_read_again(reader, filled, space, make):
    for query in QUERIES:
        getattr(reader, query)()
    filled.mark_missing([make.photo_at(filled, "/p/a.jpg").photo_id])
    filled.record_batch(space, [make.item("/p/c.jpg", "c"), make.item("/p/d.jpg", "d")])
    other = make.space(filled, "other")
    filled.use_space(other.space_id)
    assert (reader.status().photos, reader.status().missing) == (3, 1)
    assert [found.vectors for found in reader.spaces()] == [4, 0]
    assert reader.current_space().space_id == reader.space(other.space_id).space_id == other.space_id
    assert reader.tag_counts() == {}


def test_changing_a_result_does_not_change_the_cache(reader):
    reader.tag_counts().clear()
    reader.spaces().clear()
    assert reader.tag_counts() == {"red": 1}
    assert len(reader.spaces()) == 1


def test_what_passes_the_latest_filter_is_read_once_and_anew_after_a_commit(reader, filled, space, make):
    def found(tag):
        return len(reader.searchable_ids(space, SearchFilter(tag=tag)))

    assert (found("red"), found("blue"), found("red")) == (1, 0, 1)
    sent = record_statements(reader)
    assert found("red") == 1
    assert [statement for statement in sent if "FROM" in statement] == []
    classifier = filled.ensure_classifier(fingerprint="f", source="s", model="m")
    filled.record_tags(classifier, [(make.photo_at(filled, "/p/b.jpg").content_id, [("red", 0.9)])])
    assert found("red") == 2


def test_a_mark_leaves_what_a_map_and_a_search_read(reader, filled, space, make):
    lists = (reader.points, reader.searchable_ids)
    marked = SearchFilter(favourite=True)
    before = [read(space) for read in lists]
    assert [len(reader.points(space, marked).photo_ids), len(reader.searchable_ids(space, marked))] == [0, 0]
    before[1] = reader.searchable_ids(space)  # the cache keeps those of the latest filter
    filled.mark([make.photo_at(filled, "/p/a.jpg").photo_id], {"favourite": True}, "one favourite")
    sent = record_statements(reader)
    assert all(read(space) is then for read, then in zip(lists, before, strict=True))
    assert not any("photos" in text for text in sent)
    assert [len(reader.points(space, marked).photo_ids), len(reader.searchable_ids(space, marked))] == [1, 1]


def test_the_writer_sees_its_own_changes(filled, make):
    before = filled.status().missing
    filled.mark_missing([make.photo_at(filled, "/p/a.jpg").photo_id])
    assert filled.status().missing == before + 1


def test_in_a_block_of_one_version_it_is_asked_for_once(reader):
    sent = record_statements(reader)
    with one_version():
        for query in QUERIES * 2:
            getattr(reader, query)()
    assert sum("data_version" in text or "pg_current_snapshot" in text for text in sent) == 1


def test_such_a_block_sees_its_own_changes_and_the_next_one_those_of_others(reader, filled, make):
    def mark(path):
        filled.mark_missing([make.photo_at(filled, path).photo_id])

    with one_version():
        assert reader.status().missing == 0
        mark("/p/a.jpg")
        assert reader.status().missing == 1
        with ThreadPoolExecutor(1) as other:
            other.submit(mark, "/p/b.jpg").result()
    with one_version():
        assert reader.status().missing == 2


@pytest.mark.postgresql_only("a server ends connections")
def test_idle_connections_are_tried_before_they_are_used(reader, catalogue_template, monkeypatch):
    server, _ = catalogue_template
    name = reader.address.rpartition("/")[2]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: reader.count_photos(), range(30)))
    server.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    monkeypatch.setattr(postgresql, "_IDLE_SECONDS", 0.0)
    assert reader.count_photos() == 2
    reader.status()


def test_many_threads_at_once(reader):
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: reader.status(), range(64)))
    assert len({result.photos for result in results}) == 1


@pytest.mark.sqlite_only("reads SQLite's plans")
def test_a_far_page_reads_only_its_own_rows(reader):
    """The rows that are passed over are counted in an index that holds nothing else."""
    sent = record_statements(reader)
    reader.photos(offset=1, limit=1)
    statement = next(text for text in sent if "LIMIT" in text)
    with reader._database.read_transaction() as connection:
        parameters = (1, 1) if statement.count("?") == 2 else ()
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    chosen, joined = plan[: plan.index("LIST SUBQUERY 1")], plan[plan.index("LIST SUBQUERY 1") :]
    assert all("INTEGER PRIMARY KEY" in step for step in chosen)
    assert any("photos_shown" in step for step in joined)
    assert not any("contents" in step and "SCAN" in step for step in plan)


@pytest.mark.sqlite_only("reads SQLite's plans")
def test_hidden_ids_reads_only_missing_photos(reader):
    sent = record_statements(reader)
    reader.hidden_ids(1)
    with reader._database.read_transaction() as connection:
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sent[-1]}", (1,))]
    assert any("photos_missing" in step for step in plan)
    assert not any(step.startswith("SCAN") for step in plan), plan


@pytest.mark.sqlite_only("reads SQLite's plans")
@pytest.mark.parametrize(
    "look",
    [lambda reader, ids: reader.vectors(1, ids),
     lambda reader, ids: reader.searchable_among(1, SearchFilter(camera="x"), ids),
     lambda reader, ids: reader.vector_source(1).attributes(ids)],
    ids=["vectors", "those that pass a filter", "attributes"],
)  # fmt: skip
def test_forty_vectors_are_found_by_their_ids_among_any_number(filled, reader, make, look):
    filled.record_batch(1, [make.item(f"/q/{n}.jpg", f"q{n}") for n in range(60)])
    sent = record_statements(reader)
    look(reader, np.arange(10, 50))
    statement = next(text for text in sent if "FROM embeddings" in text)
    with reader._database.read_transaction() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", (1,) * statement.count("?"))
        steps = [row[3] for row in plan]
    assert any(step.startswith("SEARCH embeddings USING INTEGER PRIMARY KEY") for step in steps), steps


def test_no_vector_is_counted_to_find_a_space(filled, reader, make):
    sent = record_statements(reader)
    assert reader.space(1).vectors == 2
    filled.record_batch(1, [make.item("/p/c.jpg", "c")])
    assert reader.space(1).vectors == 3
    assert not any("embeddings" in text for text in sent)
