"""What processes with one catalogue on a server share."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.helpers.postgresql_server import PostgresqlServer
from vitmae_search.catalog import Catalog, CatalogWriter, SharedValues


@pytest.fixture
def server_address(catalogue_template: tuple[PostgresqlServer, str]) -> Iterator[str]:
    server, template = catalogue_template
    name = server.create(template)
    yield server.address(name)
    server.drop(name)


@pytest.fixture
def copies(tmp_path: Path, server_address: str) -> Iterator[tuple[SharedValues, SharedValues]]:
    with (
        Catalog.open(tmp_path / "one", server_address) as one,
        Catalog.open(tmp_path / "two", server_address) as two,
    ):
        assert one.shared_values is not None
        assert two.shared_values is not None
        yield one.shared_values, two.shared_values


def test_a_value_of_one_process_is_found_by_the_others(copies: tuple[SharedValues, SharedValues]) -> None:
    one, two = copies
    assert two.get("upload/a") is None
    one.put("upload/a", b"\0picture", "caf\udce9.jpg")
    found = two.get("upload/a")
    assert found is not None
    assert (found.data, found.label) == (b"\0picture", "caf?.jpg")
    one.put("upload/a", b"another")
    found = two.get("upload/a")
    assert found is not None
    assert (found.data, found.label) == (b"another", "")
    two.delete("upload/a")
    assert one.get("upload/a") is None


def test_the_first_value_of_a_name_stays(copies: tuple[SharedValues, SharedValues]) -> None:
    one, two = copies
    assert one.put_if_absent("key", b"1") == b"1"
    assert two.put_if_absent("key", b"2") == b"1"


def test_the_oldest_give_way(copies: tuple[SharedValues, SharedValues]) -> None:
    one, two = copies
    one.put("other/x", b"x" * 100)
    for name in "abcd":
        one.put(f"up%/{name}", b"x" * 10)
    one.put("up%/a", b"x" * 10)  # again, so it is the newest
    two.keep_newest("up%/", 3, 1000)
    assert two.names("up%/") == {"a", "c", "d"}
    two.keep_newest("up%/", 3, 25)
    assert two.names("up%/") == {"a", "d"}
    two.keep_newest("up%/", 3, 5)
    assert two.names("up%/") == {"a"}, "the newest one, however large"
    one.delete_older("up%/", timedelta(hours=1))
    assert two.names("up%/") == {"a"}
    one.delete_older("up%/", timedelta(0))
    assert two.names("up%/") == set()
    assert two.names("other/") == {"x"}


def test_a_file_shares_nothing(tmp_path: Path) -> None:
    with CatalogWriter.open_writer(tmp_path / "library") as writer:
        assert writer.shared_values is None
