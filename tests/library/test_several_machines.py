"""Libraries of several machines with one catalogue on a server: each has a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.postgresql_server import PostgresqlServer
from vitmae_search.library import Library


@pytest.fixture
def address(postgresql: PostgresqlServer) -> Iterator[str]:
    name = postgresql.create()
    yield postgresql.address(name)
    postgresql.drop(name)


def test_a_new_folder_has_all_that_the_catalogue_needs(address: str, photos: Path, tmp_path: Path) -> None:
    """The projection of the space that is searched was made on the first machine."""
    with Library.open(tmp_path / "one", catalog=address) as one:
        one.index(photos)
        assert one.spaces()[-1].projection is not None
    with Library.open(tmp_path / "two", catalog=address) as two:
        assert two.index(photos).unchanged == 12
        assert two.check().problems == ()
        assert two.search((photos / "odd/1.jpg").read_bytes()).hits[0].photo.path.endswith("1.jpg")
        assert two.thumbnail(1) is not None
        with Library.open(tmp_path / "one", catalog=address) as one:
            adapted = one.derive_space(None)
            one.drop_space(adapted.space_id)
        assert [space.kind for space in two.spaces()] == ["features"]
