"""A user of PostgreSQL who may only read: searches, uploads and sign-ins work; what writes says why not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.postgresql_server import PostgresqlServer
from tests.web.server.test_access_guard import browser, sign_in
from vitmae_search.errors import LibraryDenied, VectorStoreDenied
from vitmae_search.library import Library
from vitmae_search.web.server.session import Uploads
from vitmae_search.web.server.sign_in_cookies import SharedSignInCookies


@pytest.fixture
def database(postgresql: PostgresqlServer) -> Iterator[str]:
    name = postgresql.create()
    postgresql.run("CREATE EXTENSION vector", name)
    yield name
    postgresql.drop(name)


@pytest.fixture
def reader(postgresql: PostgresqlServer, database: str) -> Iterator[str]:
    """Her address, with the rights of docs/scaling.md, which she has before there is a table."""
    role = f"reader_{database}"
    postgresql.run(f"CREATE ROLE {role} LOGIN PASSWORD 'reads'", database)
    for what in ("USAGE ON SCHEMAS", "SELECT ON TABLES"):
        postgresql.run(f"ALTER DEFAULT PRIVILEGES GRANT {what} TO {role}", database)
    yield f"postgresql://{role}:reads@127.0.0.1:{postgresql.port}/{database}"
    postgresql.run(f"DROP OWNED BY {role}", database)
    postgresql.run(f"DROP ROLE {role}")


@pytest.fixture
def indexed(postgresql: PostgresqlServer, database: str, reader: str, photos: Path, tmp_path: Path) -> str:
    """The owner's address, once there are photos."""
    assert reader  # her rights come first
    address = postgresql.address(database)
    with Library.open(tmp_path / "owner", catalog=address, vectors=address) as library:
        library.index(photos / "odd")
    return address


def test_a_reader_searches_what_is_stored_though_it_is_behind(
    indexed: str, reader: str, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Library.open(tmp_path / "reader", catalog=reader, vectors=reader) as library:
        query = photos / "odd" / "3.jpg"
        assert len(library.search(query).hits) == 6
        with Library.open(tmp_path / "owner", catalog=indexed) as owner:
            owner.index(photos)
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert len(library.search(query).hits) == 6
        assert caplog.text.count("until another user stores them") == 1
        assert "reads" not in caplog.text
        assert library.check().problems == ()


def test_a_reader_for_whom_nothing_is_stored_is_told(
    postgresql: PostgresqlServer, database: str, reader: str, photos: Path, tmp_path: Path
) -> None:
    with Library.open(tmp_path / "owner", catalog=postgresql.address(database)) as owner:
        owner.index(photos)
    with Library.open(tmp_path / "reader", catalog=reader, vectors=reader) as library:
        with pytest.raises(VectorStoreDenied, match=r"permission denied .* their owner can GRANT it"):
            library.search(photos / "odd" / "3.jpg")
        with pytest.raises(LibraryDenied, match="Its owner can GRANT it"):
            library.mark([1], favourite=True)


def test_a_reader_has_a_projection_that_the_server_lacks(
    postgresql: PostgresqlServer, reader: str, database: str, photos: Path, tmp_path: Path
) -> None:
    with Library.open(tmp_path / "owner", catalog=postgresql.address(database)) as owner:
        owner.index(photos / "odd")
    query = (photos / "even/2.jpg").read_bytes()  # unknown, so that it is projected
    with Library.open(tmp_path / "reader", catalog=reader) as library:
        assert library.search(query).hits
        assert list((tmp_path / "reader" / "projections").iterdir())  # it was fetched
    postgresql.run("DELETE FROM shared_values", database)
    with Library.open(tmp_path / "reader", catalog=reader) as library:
        assert library.search(query).hits


def test_a_reader_s_app_signs_in_and_takes_uploads(indexed: str, reader: str, tmp_path: Path) -> None:
    with Library.open(tmp_path / "reader", catalog=reader) as library:
        uploads = Uploads(shared=library.shared_values)
        token = uploads.add("a.jpg", b"picture")
        found = uploads.get(token)
        assert found is not None
        assert found.data == b"picture"
        assert uploads.add("a.jpg", b"picture") == token
        cookies = SharedSignInCookies("correct horse", library.shared_values)
        visitor = browser("correct horse", cookies=cookies)
        assert sign_in(visitor).status_code == 303
        assert visitor.get("/photo/1").status_code == 200
        (taken,) = dict(visitor.cookies).items()
        answer = visitor.post("/sign-out")
        assert answer.status_code == 503
        assert "signed out of this copy of the app alone" in answer.text
        visitor.cookies.set(*taken)
        assert visitor.get("/photo/1").status_code == 401


def test_a_missing_extension_is_named_with_who_makes_it(
    postgresql: PostgresqlServer, photos: Path, tmp_path: Path
) -> None:
    name = postgresql.create()
    role = f"maker_{name}"
    postgresql.run(f"CREATE ROLE {role} LOGIN PASSWORD 'makes'")
    try:
        postgresql.run(f"GRANT CREATE ON DATABASE {name} TO {role}")
        vectors = f"postgresql://{role}:makes@127.0.0.1:{postgresql.port}/{name}"
        with Library.open(tmp_path / "library", vectors=vectors) as library:
            library.index(photos)
            with pytest.raises(VectorStoreDenied, match=f"--dbname={name} --command='CREATE EXTENSION"):
                library.search(photos / "odd" / "3.jpg")
    finally:
        postgresql.drop(name)
        postgresql.run(f"DROP ROLE {role}")
