"""From an old file to the newest, and no step by halves."""

from __future__ import annotations

import importlib.util
import re
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, create_engine, inspect, text

from vitmae_search.catalog import Catalog, CatalogWriter, postgresql_migrations
from vitmae_search.catalog.migrations import NEWEST, STEPS, migrate
from vitmae_search.catalog.schema import APPLICATION_ID, Table
from vitmae_search.catalog.sqlite import writing_engine
from vitmae_search.catalog.writer_lock import WriterLock
from vitmae_search.errors import LibraryBusy, LibraryDamaged, LibraryEmpty, LibraryTooNew

pytestmark = pytest.mark.sqlite_only("brings SQLite's files of earlier versions up to date")

OLD = {number: Path(__file__).with_name(f"version_{number}.sql") for number in range(1, 17)}
RUNS = {1: [], **{version: ["0a1b"] for version in range(2, 17)}}
TAGS = {1: {}, 2: {}, **{version: {"red": 2} for version in range(3, 17)}}


def run_sql(folder: Path, script: str) -> None:
    folder.mkdir(exist_ok=True)
    raw = sqlite3.connect(folder / "catalogue.sqlite3")
    raw.executescript(script)
    raw.close()


def ask(folder: Path, statement: str) -> list[tuple[object, ...]]:
    raw = sqlite3.connect(folder / "catalogue.sqlite3")
    rows = raw.execute(statement).fetchall()
    raw.close()
    return rows


@pytest.fixture(params=OLD)
def version(request) -> int:
    return int(request.param)


@pytest.fixture
def old(folder: Path, version: int) -> Path:
    run_sql(folder, OLD[version].read_text("utf-8"))
    return folder


def test_every_released_version_but_the_newest_has_its_file():
    assert [*OLD, NEWEST] == list(range(1, NEWEST + 1))


def test_the_dump_of_the_newest_version_is_that_version(folder, tmp_path):
    path = load_dump_catalogue().dump(tmp_path)
    assert path.name == f"version_{NEWEST}.sql"
    run_sql(folder, path.read_text("utf-8"))
    assert ask(folder, "PRAGMA user_version") == [(NEWEST,)]
    CatalogWriter.open_writer(tmp_path / "fresh").close()
    assert schema(folder) == schema(tmp_path / "fresh")
    with Catalog.open(folder) as catalog:
        assert (len(catalog.photos()), catalog.check()) == (3, [])


def load_dump_catalogue():
    file = Path(__file__).with_name("dump_catalogue.py")
    spec = importlib.util.spec_from_file_location("dump_catalogue", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def schema(folder: Path) -> dict[str, str]:
    rows = ask(folder, "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {str(name): re.sub(r"\s+", " ", str(sql)) for name, sql in rows}


@pytest.mark.parametrize("door", ["reader", "writer"])
def test_an_old_file_is_brought_up_to_date_with_all_it_holds(old, version, tmp_path, door):
    assert ask(old, "PRAGMA user_version") == [(version,)]
    with Catalog.open(old) if door == "reader" else CatalogWriter.open_writer(old) as catalog:
        photos = {photo.path: photo for photo in catalog.photos(missing=None)}
        assert set(photos) == {"/p/a.jpg", "/p/b.jpg", "/p/caf\udce9.jpg", "/p/gone.jpg"}
        assert photos["/p/gone.jpg"].missing
        assert photos["/p/a.jpg"].metadata.camera == "Canon EOS"
        assert catalog.searchable_ids(1).tolist() == [1, 2]
        assert catalog.hidden_ids(1).tolist() == [4]
        np.testing.assert_array_equal(catalog.vector(2, 1), np.float32([0, 0, 0, 1]))
        assert catalog.vector_source(1).removed_since(2).tolist() == [3]
        assert catalog.vector_source(1).revision_identity(catalog.vector_source(1).revision())
        assert [failure.path for failure in catalog.failures(1)] == ["/p/bad.jpg"]
        assert [(space.model, space.current) for space in catalog.spaces()] == [
            ("first", True), ("second", False),
        ]  # fmt: skip
        assert [(space.parent_id, space.projection) for space in catalog.spaces()] == [(None, None)] * 2
        assert [(root.path, root.device, root.photos) for root in catalog.roots()] == [("/p", 7, 3)]
        assert [run.key for run in catalog.runs()] == RUNS[version]
        assert catalog.tag_counts() == TAGS[version]
        assert catalog.check() == []
    assert ask(old, "PRAGMA user_version") == [(NEWEST,)]
    CatalogWriter.open_writer(tmp_path / "fresh").close()
    assert schema(old) == schema(tmp_path / "fresh")


def test_ids_of_an_old_file_are_not_used_again(old, make):
    with CatalogWriter.open_writer(old) as writer:
        third = make.space(writer, "third").space_id
        writer.record_batch(third, [make.item("/p/new.jpg", "new")])
        assert make.photo_at(writer, "/p/new.jpg").photo_id == 10  # 9 had been given away
        assert writer.searchable_ids(third).tolist() == [6]


def test_an_old_file_is_not_touched_while_another_writes(old, version):
    lock = WriterLock(old)
    lock.acquire(0)
    with pytest.raises(LibraryBusy):
        Catalog.open(old)
    assert ask(old, "PRAGMA user_version") == [(version,)]
    lock.release()
    Catalog.open(old).close()
    assert ask(old, "PRAGMA user_version") == [(NEWEST,)]


def test_a_step_that_fails_leaves_the_one_before(folder):
    folder.mkdir()
    engine = writing_engine(folder / "catalogue.sqlite3")
    half = ("CREATE TABLE extra (a)", "INSERT INTO extra VALUES (1)", "CREATE TABLE photos (b)")
    with engine.connect() as connection:
        with pytest.raises(Exception, match="already exists"):
            migrate(connection, 0, [STEPS[0], half])
        assert connection.exec_driver_sql("PRAGMA user_version").scalar_one() == 1
        names = connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars().all()
    engine.dispose()
    assert "photos" in names
    assert "extra" not in names
    with CatalogWriter.open_writer(folder) as writer:  # and goes on from there
        assert writer.check() == []


def test_the_typed_tables_are_those_of_the_file(folder, tmp_path):
    CatalogWriter.open_writer(folder).close()
    declared = create_engine(f"sqlite:///{tmp_path / 'declared.sqlite3'}")
    Table.metadata.create_all(declared)
    migrated = create_engine(f"sqlite:///{folder / 'catalogue.sqlite3'}")
    try:
        assert described(migrated) == described(declared)
    finally:
        declared.dispose()
        migrated.dispose()


def described(engine) -> dict[str, object]:
    look = inspect(engine)
    return {
        table: (
            [(c["name"], str(c["type"]), c["nullable"], c["primary_key"]) for c in look.get_columns(table)],
            sorted((i["name"], tuple(i["column_names"]), i["unique"]) for i in look.get_indexes(table)),
            sorted(tuple(u["column_names"]) for u in look.get_unique_constraints(table)),
            sorted((f["constrained_columns"], f["referred_table"]) for f in look.get_foreign_keys(table)),
            bool(re.search("AUTOINCREMENT", _sql(engine, table))),
        )
        for table in look.get_table_names()
    }


def _sql(engine, table: str) -> str:
    with engine.connect() as connection:
        statement = "SELECT sql FROM sqlite_master WHERE name = ?"
        return str(connection.exec_driver_sql(statement, (table,)).scalar_one())


# Files that are not ours ---------------------------------------------------------------------------------


@pytest.mark.parametrize("door", [Catalog.open, CatalogWriter.open_writer], ids=["reader", "writer"])
def test_another_programs_file_is_refused_and_left_alone(folder, door):
    run_sql(folder, "CREATE TABLE notes (a); INSERT INTO notes VALUES (1);")
    before = (folder / "catalogue.sqlite3").read_bytes()
    with pytest.raises(LibraryDamaged, match="another program"):
        door(folder)
    assert (folder / "catalogue.sqlite3").read_bytes() == before


@pytest.mark.parametrize("door", [Catalog.open, CatalogWriter.open_writer], ids=["reader", "writer"])
def test_a_newer_file_is_refused_and_left_alone(folder, door):
    CatalogWriter.open_writer(folder).close()
    run_sql(folder, f"PRAGMA user_version = {NEWEST + 1};")
    before = (folder / "catalogue.sqlite3").read_bytes()
    with pytest.raises(LibraryTooNew, match=f"format is {NEWEST + 1}.*Upgrade"):
        door(folder)
    assert (folder / "catalogue.sqlite3").read_bytes() == before


def test_no_file_and_an_empty_one_are_an_empty_library(folder):
    with pytest.raises(LibraryEmpty, match="vitmae-search index"):
        Catalog.open(folder)
    assert not folder.exists()
    folder.mkdir()
    (folder / "catalogue.sqlite3").touch()
    with pytest.raises(LibraryEmpty):
        Catalog.open(folder)
    with CatalogWriter.open_writer(folder) as writer:
        assert writer.spaces() == []
    assert ask(folder, "PRAGMA application_id") == [(APPLICATION_ID,)]


def test_a_reader_that_comes_while_a_writer_migrates_need_not_wait_for_its_end(old, version):
    """As whoever opens a library that another process is just making: the file is old for a moment."""
    lock = WriterLock(old)
    lock.acquire(0)
    try:
        with ThreadPoolExecutor() as pool:
            opening = pool.submit(Catalog.open, old)
            time.sleep(0.3)  # it has seen the old version by now, or will see the new one
            engine = writing_engine(old / "catalogue.sqlite3")
            with engine.connect() as connection:
                migrate(connection, version)
            engine.dispose()
            with opening.result() as catalog:
                assert catalog.count_photos() > 0
    finally:
        lock.release()


def test_both_databases_have_the_same_newest_version():
    assert postgresql_migrations.NEWEST == NEWEST


@pytest.fixture
def server_tables(postgresql) -> Iterator[tuple[Engine, Engine]]:
    """Databases that the steps made, and that the typed tables say."""
    migrated, declared = postgresql.create(), postgresql.create()
    engines = [
        create_engine(postgresql.address(name).replace(":", "+psycopg:", 1)) for name in (migrated, declared)
    ]
    with engines[0].begin() as connection:
        postgresql_migrations.migrate(connection, migrated)
    for table in Table.metadata.tables.values():
        for index in table.indexes:
            if "postgresql_where" in index.info:
                index.dialect_options["postgresql"]["where"] = text(index.info["postgresql_where"])
    Table.metadata.create_all(engines[1])
    yield engines[0], engines[1]
    for engine, name in zip(engines, (migrated, declared), strict=True):
        engine.dispose()
        postgresql.drop(name)


def test_the_typed_tables_are_those_of_the_server(server_tables):
    columns = """
        SELECT table_name, column_name, data_type, collation_name, is_nullable FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name <> 'catalogue_format' ORDER BY 1, 2
    """
    indexes = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
    keys = """
        SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE contype IN ('f', 'u', 'p') AND connamespace = 'public'::regnamespace ORDER BY 1, 2
    """
    for question in (columns, indexes, keys):
        answers = []
        for engine in server_tables:
            with engine.connect() as connection:
                answers.append(connection.exec_driver_sql(question).all())
        assert answers[0] == answers[1]
        assert len(answers[0]) > 10


def test_tables_of_an_earlier_version_on_the_server_are_brought_up_to_date(postgresql, tmp_path):
    name = postgresql.create()
    engine = create_engine(postgresql.address(name).replace(":", "+psycopg:", 1))
    first = {number: postgresql_migrations.STEPS[number] for number in list(postgresql_migrations.STEPS)[:1]}
    with engine.begin() as connection:
        postgresql_migrations.migrate(connection, name, first)
        connection.exec_driver_sql(
            "INSERT INTO runs (key, kind, arguments, state, host, pid, process_created, started_at,"
            " heartbeat_at, progress)"
            " VALUES ('k', 'index', '{}', 'done', 'elsewhere', 1, 1, now(), now(), '{}')"
        )
    engine.dispose()
    with Catalog.open(tmp_path, postgresql.address(name)) as catalog:
        assert (catalog.run("k").state, catalog.run("k").cancel_requested_at) == ("done", None)
    assert postgresql.run("SELECT version FROM catalogue_format", name) == [(NEWEST,)]
    postgresql.drop(name)
