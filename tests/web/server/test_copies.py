"""Several copies of the app with one catalogue on a server: sign-ins and uploads reach all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.postgresql_server import PostgresqlServer
from tests.web.server.test_access_guard import browser, sign_in
from vitmae_search.catalog import SharedValues
from vitmae_search.library import Library
from vitmae_search.web.server import sign_in_cookies
from vitmae_search.web.server.session import Uploads
from vitmae_search.web.server.sign_in_cookies import SharedSignInCookies

PASSWORD = "correct horse"


@pytest.fixture
def address(postgresql: PostgresqlServer) -> Iterator[str]:
    name = postgresql.create()
    yield postgresql.address(name)
    postgresql.drop(name)


@pytest.fixture
def machines(address: str, tmp_path: Path) -> Iterator[list[Library]]:
    with (
        Library.open(tmp_path / "a", catalog=address) as a,
        Library.open(tmp_path / "b", catalog=address) as b,
    ):
        yield [a, b]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request asks the catalogue who has signed out."""
    monkeypatch.setattr(sign_in_cookies, "_CURRENT_SECONDS", 0.0)


def copy(library: Library, password: str = PASSWORD) -> Any:
    return browser(password, cookies=SharedSignInCookies(password, library.shared_values))


def test_who_has_signed_in_at_one_copy_is_signed_in_at_all(machines: list[Library]) -> None:
    one, two = map(copy, machines)
    assert two.get("/photo/1").status_code == 401
    assert sign_in(one).status_code == 303
    two.cookies = one.cookies
    assert two.get("/photo/1").status_code == 200
    other = copy(machines[1], "another password")
    other.cookies = one.cookies
    assert other.get("/photo/1").status_code == 401

    three = copy(machines[1])  # started anew
    three.cookies = one.cookies
    assert three.get("/photo/1").status_code == 200

    (taken,) = dict(one.cookies).items()
    assert two.post("/sign-out").status_code == 303
    for each in (one, three):
        each.cookies.set(*taken)
        assert each.get("/photo/1").status_code == 401


def test_a_websocket_ends_when_its_visitor_signs_out_at_another_copy(machines: list[Library]) -> None:
    one, two = map(copy, machines)
    sign_in(one)
    two.cookies = one.cookies
    with one.websocket_connect("ws://127.0.0.1:8501/_stcore/stream") as stream:
        stream.send_text("hello")
        assert stream.receive_text() == "hello"
        two.post("/sign-out")
        stream.send_text("still there?")
        assert stream.receive()["type"] == "websocket.close"


def test_without_the_database_nobody_is_let_in_before_the_key_is_known(
    machines: list[Library], postgresql: PostgresqlServer, address: str
) -> None:
    one, two = map(copy, machines)
    sign_in(one)
    assert one.get("/photo/1").status_code == 200
    for library in machines:
        library.close()
    name = address.rpartition("/")[2]
    postgresql.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    two.cookies = one.cookies
    refused = two.get("/photo/1")
    assert (refused.status_code, "does not answer" in refused.text) == (503, True)
    assert one.get("/photo/1").status_code == 200


def test_an_upload_at_one_copy_is_found_by_all(machines: list[Library]) -> None:
    one, two = (Uploads(shared=library.shared_values) for library in machines)
    token = one.add("a b.jpg", b"picture")
    found = two.get(token)
    assert found is not None
    assert (found.name, found.data) == ("a b.jpg", b"picture")
    assert two.add("a b.jpg", b"picture") == token
    assert two.get("f" * 32) is None
    assert two.get("x" * 10_000) is None


def test_a_file_keeps_uploads_in_memory(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library") as library:
        values: SharedValues | None = library.shared_values()
        assert values is None
        assert not (tmp_path / "library").exists()
