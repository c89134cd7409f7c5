"""The commands and `Library` on a catalogue that is on a PostgreSQL server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.postgresql_server import PASSWORD, QUOTED_PASSWORD, PostgresqlServer
from vitmae_search.errors import LibraryError, StorageError
from vitmae_search.library import Library
from vitmae_search.records import SearchFilter

PHOTOS = 12


@pytest.fixture
def photos(tmp_path, write_photo) -> Path:
    for number in range(PHOTOS):
        write_photo(tmp_path / "photos" / f"{number}.jpg", number)
    return tmp_path / "photos"


def command(*words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "vitmae_search", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_two_commands_index_one_folder_at_once_and_show_no_password(
    tmp_path, photos, postgresql: PostgresqlServer
):
    database = postgresql.create()
    where = ("--catalog", postgresql.address(database))
    both = [
        command("index", photos, "--library", tmp_path / name, *where, "--embedder", "color_layout", "--json")
        for name in ("one", "other")
    ]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    reports = [json.loads(output) for output, _ in said]
    assert sum(report["added"] for report in reports) == PHOTOS
    assert [report["found"] for report in reports] == [PHOTOS, PHOTOS]
    for table in ("photos", "contents", "embeddings"):
        assert postgresql.run(f"SELECT count(*) FROM {table}", database) == [(PHOTOS,)]
    listed = command("status", "--library", tmp_path / "new machine", *where, "--json").communicate()
    assert json.loads(listed[0])["photos"] == PHOTOS
    assert "no library" not in listed[1]
    assert not (tmp_path / "one/catalogue.sqlite3").exists()
    with Library.open(tmp_path / "third", catalog=postgresql.address(database)) as library:
        hits = library.search(photos / "3.jpg", k=3).hits
        assert hits[0].photo.path == str(photos / "3.jpg")
        assert library.check().problems == ()
    stored = str(postgresql.run("SELECT * FROM runs", database))
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in (PASSWORD, QUOTED_PASSWORD):
        assert secret not in f"{said} {listed} {stored}"
        assert not any(secret.encode() in content for content in files)


def test_errors_of_the_server_are_sentences_without_the_password(tmp_path, postgresql: PostgresqlServer):
    missing = postgresql.address("nowhere")
    wrong = postgresql.address("postgres", password="wr%40ng")
    away = f"postgresql://vitmae:{QUOTED_PASSWORD}@127.0.0.1:9/library"
    for address, kind, sentence in (
        (missing, LibraryError, "createdb --encoding UTF8 --template template0 NAME"),
        (wrong, LibraryError, "does not let this user in"),
        (away, StorageError, "does not answer"),
        (f"mysql://vitmae:{QUOTED_PASSWORD}@127.0.0.1/library", LibraryError, "looks like this"),
        (f"postgresql://vitmae:{QUOTED_PASSWORD}@127.0.0.1:no/library", LibraryError, "looks like this"),
    ):
        with (
            pytest.raises(kind, match=sentence) as raised,
            Library.open(tmp_path / "library", catalog=address) as library,
        ):
            library.status()
        text = f"{raised.value} {raised.value!r}"
        assert not any(secret in text for secret in (PASSWORD, QUOTED_PASSWORD, "wr@ng", "wr%40ng"))


def test_a_laptop_loads_nothing_of_it():
    code = (
        "import sys; from vitmae_search.library import Library; Library.open('nowhere').status(); "
        "print([name for name in sys.modules if 'psycopg' in name or 'catalog.postgresql' in name])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_library_moves_to_a_server(tmp_path, photos, postgresql: PostgresqlServer):
    address, folder = postgresql.address(postgresql.create()), tmp_path / "library"
    with Library.open(folder, embedder="color_layout") as library:
        library.index(photos)
        first = library.photos()[0]
        library.mark([first.photo_id], favourite=True)
        with pytest.raises(LibraryError, match="--catalog"):
            library.copy_catalog()
        hits = library.search(first.path, k=5).hits
    done = command("copy-catalog", "--library", folder, "--catalog", address)
    assert done.communicate()[0].startswith(f"copied {PHOTOS} photos with {PHOTOS} vectors, 0 tags, 1 marks")
    (folder / "catalogue.sqlite3").unlink()
    with Library.open(folder, catalog=address) as library:
        assert library.search(first.path, k=5).hits == hits
        assert [photo.path for photo in library.photos(SearchFilter(favourite=True))] == [first.path]
        assert library.index(photos).unchanged == PHOTOS


def test_status_names_the_database_without_the_password(tmp_path, postgresql: PostgresqlServer):
    name = postgresql.create()
    with Library.open(tmp_path, catalog=postgresql.address(name)) as library:
        assert library.status().database == f"postgresql://127.0.0.1:{postgresql.port}/{name}"
    with Library.open(tmp_path) as library:
        assert library.status().database is None
    postgresql.drop(name)
