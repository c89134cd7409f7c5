"""Libraries of other versions, as commands meet them; see `tests/catalog/test_migrations.py`, too."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.scenarios import DUMPS, Home, index_command, write_photo
from tests.faults.truth import Truth
from vitmae_search.catalog.migrations import NEWEST

READING = (".sqlite3-shm", ".sqlite3-wal")


def files_of(folder: Path) -> dict[str, bytes]:
    """All bytes in a folder, but for the lock's own files, and those that SQLite makes to read."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("writer.") and path.suffix not in READING
    }


@pytest.mark.parametrize("version", range(1, NEWEST))
def test_each_earlier_version_opens(home: Home, version: int) -> None:
    home.library.mkdir()
    with closing(sqlite3.connect(home.library / "catalogue.sqlite3")) as catalogue:
        catalogue.executescript((DUMPS / f"version_{version}.sql").read_text("utf-8"))
    assert home.must("status", "--json").json["photos"] == 3
    home.must("check")
    write_photo(home.photos / "new.jpg", 1)
    home.must(*index_command(home))
    home.must("check")
    photos = Truth.of(home.library).photos
    assert {"/p/a.jpg", "/p/b.jpg", str(home.photos / "new.jpg")} <= photos.keys()


def test_a_newer_version_is_refused_and_left_as_it_is(home: Home) -> None:
    write_photo(home.photos / "one.jpg", 1)
    home.must(*index_command(home))
    with closing(sqlite3.connect(home.library / "catalogue.sqlite3")) as catalogue:
        catalogue.execute(f"PRAGMA user_version = {NEWEST + 1}")
        catalogue.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = files_of(home.library)
    commands = [
        ("status",),
        ("check",),
        ("check", "--repair"),
        ("search", home.photos / "one.jpg"),
        index_command(home),
        ("prune",),
        ("forget", home.photos),
        ("spaces", "drop", "1"),
        ("classify", "--model", "colours", "--plugin", "plain"),
    ]
    for command in commands:
        done = home.run(*command)
        assert done.code == 1, command
        assert f"format is {NEWEST + 1}" in done.err
        assert files_of(home.library) == before, command
