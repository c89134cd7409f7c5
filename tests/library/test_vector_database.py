"""A library whose vectors are searched in a database gives the hits of one that searches files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.helpers.postgresql_server import PostgresqlServer
from vitmae_search.library import Library
from vitmae_search.records import GeoBox, Hit, SearchFilter

FILTERS = (
    SearchFilter(),
    SearchFilter(under="photos/even"),
    SearchFilter(under="photos/eve"),
    SearchFilter(under="/"),
    SearchFilter(before=datetime(2001, 1, 1)),
    SearchFilter(after=datetime(2001, 1, 1), format="JPEG", orientation="landscape"),
    SearchFilter(orientation="portrait"),
    SearchFilter(camera="no such camera"),
    SearchFilter(has_place=False, min_bytes=10, max_bytes=10**7),
    SearchFilter(box=GeoBox(0, 0, 10, 10)),
    SearchFilter(favourite=True),
)


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{getattr(request, 'param', 'pgvector')}_address")
    return found


@pytest.fixture
def remote(library: Library, address: str) -> Iterator[Library]:
    with Library.open(library.folder, vectors=address) as opened:
        yield opened


def shown(hits: tuple[Hit, ...]) -> list[tuple[str, float]]:
    return [(hit.photo.path, hit.score) for hit in hits]


@pytest.mark.parametrize("where", FILTERS, ids=str)
def test_hits_are_the_same(library: Library, remote: Library, photos: Path, where: SearchFilter) -> None:
    if where.under is not None and where.under != "/":
        where = SearchFilter(under=str(photos.parent / where.under))
    library.mark([photo.photo_id for photo in library.photos()[:3]], favourite=True)
    query = photos / "odd" / "3.jpg"
    found, expected = (one.search(query, k=5, where=where) for one in (remote, library))
    assert shown(found.hits) == shown(expected.hits)


@pytest.mark.parametrize("address", ["pgvector", "milvus"], indirect=True)
def test_photos_that_moved_or_went_are_filtered_as_they_are_now(
    library: Library, remote: Library, photos: Path
) -> None:
    query = photos / "odd" / "3.jpg"
    remote.search(query, k=3)
    (photos / "even" / "2.jpg").rename(photos / "odd" / "2.jpg")
    (photos / "odd" / "5.jpg").unlink()
    remote.index(photos)
    for where in (SearchFilter(under=str(photos / "odd")), SearchFilter()):
        found, expected = (one.search(query, k=12, where=where) for one in (remote, library))
        assert shown(found.hits) == shown(expected.hits)


def test_a_folder_that_has_another_path_is_filtered_by_it(remote: Library, photos: Path) -> None:
    query = (photos / "odd" / "3.jpg").read_bytes()
    assert len(remote.search(query, k=12, where=SearchFilter(under=str(photos))).hits) == 12
    moved = photos.rename(photos.parent / "moved")
    remote.relocate(photos, moved)
    assert len(remote.search(query, k=12, where=SearchFilter(under=str(moved))).hits) == 12
    assert not remote.search(query, k=12, where=SearchFilter(under=str(photos))).hits


def test_check_drop_and_status_know_the_database(remote: Library, photos: Path) -> None:
    remote.index(photos)
    assert "up to date with the catalogue" in str(remote.index_info())
    assert remote.index_info().vectors == 12
    report = remote.check(repair=True)
    assert not report.problems


def test_the_command_takes_an_address_and_shows_no_password(
    library: Library, address: str, photos: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "vitmae_search", "status", "--library", str(library.folder), "--json"]
    ran = subprocess.run([*words, "--vectors", address], capture_output=True, text=True, check=True)
    [space] = json.loads(ran.stdout)["spaces"]
    assert "nothing is stored there yet" in space["index"]["reason"]
    assert "secret" not in ran.stdout + ran.stderr


def test_a_database_that_is_gone_costs_searches_only(library: Library, photos: Path) -> None:
    away = "postgresql://someone:top-secret@127.0.0.1:1/none"
    words = [sys.executable, "-m", "vitmae_search"]
    options = ["--library", str(library.folder), "--vectors", away]
    (photos / "new.jpg").write_bytes((photos / "odd" / "3.jpg").read_bytes() + b"!")
    indexed = subprocess.run([*words, "index", str(photos), *options], capture_output=True, text=True)
    assert indexed.returncode == 0, indexed.stderr
    assert library.status().photos == 13
    searched = subprocess.run(
        [*words, "search", str(photos / "new.jpg"), *options], capture_output=True, text=True
    )
    assert searched.returncode != 0
    assert "the vectors at postgresql://127.0.0.1:1/none cannot be used" in searched.stderr
    assert "Traceback" not in searched.stderr
    assert "top-secret" not in indexed.stderr + searched.stderr + indexed.stdout
    with Library.open(library.folder, vectors=away) as opened:
        (problem,) = opened.check(repair=True).problems
    assert problem.startswith("the vectors at postgresql://127.0.0.1:1/none cannot be used")


def test_check_says_what_it_could_not_look_at(library: Library) -> None:
    with Library.open(library.folder, vectors="postgresql://127.0.0.1:9/photos") as opened:
        report = opened.check()
    assert not report.ok
    assert not [line for line in report.checked if "vectors" in line or "index" in line], report.checked


def test_check_sees_that_nothing_can_be_stored(library: Library, postgresql: PostgresqlServer) -> None:
    name = postgresql.create()
    postgresql.run("CREATE ROLE guest LOGIN PASSWORD 'guest'")  # who may not make the extension
    try:
        address = f"postgresql://guest:guest@127.0.0.1:{postgresql.port}/{name}"
        with Library.open(library.folder, vectors=address) as opened:
            (problem,) = opened.check().problems
        assert "vector" in problem
        assert "guest:guest" not in problem
        postgresql.run("CREATE EXTENSION vector", name)
        with Library.open(library.folder, vectors=address) as opened:
            assert opened.check().ok
    finally:
        postgresql.drop(name)
        postgresql.run("DROP ROLE guest")
