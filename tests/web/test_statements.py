"""How many statements a visit of each page sends to PostgreSQL: each is a message there and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.app_pages import SEARCH, open_page
from tests.helpers.postgresql_server import PostgresqlServer
from vitmae_search.library import Library
from vitmae_search.records import SearchFilter
from vitmae_search.web.components import map_points
from vitmae_search.web.server import session

# Two more than were counted: a connection that nobody used for a second is tried first.
MOST = {
    SEARCH: 10,
    "../pages/browse.py": 10,
    "../pages/map.py": 6,
    "../pages/reconstructions.py": 13,
    "../pages/inside.py": 16,
    "../pages/albums.py": 12,
    "../pages/duplicates.py": 19,
    "../pages/library.py": 27,
    "../pages/training.py": 4,
    "../pages/plugins.py": 2,
}

Count = Callable[[Callable[[], object]], list[str]]


@pytest.fixture
def statements(
    small: Any, postgresql: PostgresqlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Count]:
    """The app on a library of a real server; counts what this logs, transactions' begin and end included."""
    address = postgresql.address(postgresql.create())
    with Library.open(tmp_path / "library", catalog=address, embedder="color_layout") as made:
        made.index([small.photos])
        made.add_to_album("Cats", [photo.photo_id for photo in made.photos()[:2]])
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setenv("VITMAE_SEARCH_CATALOG", f"{address}?options=-clog_statement%3Dall")
    log = postgresql.folder / "log"

    def sent(work: Callable[[], object]) -> list[str]:
        before = log.stat().st_size
        work()
        text = log.read_bytes()[before:].decode()
        return re.findall(r"LOG:  (?:statement|execute [^:]*): (.*)", text)

    yield sent
    session.close_libraries()


@pytest.mark.parametrize("page", MOST)
def test_a_visit_sends_few_statements(statements: Count, page: str) -> None:
    at = open_page(page)
    sent = statements(at.run)
    assert not at.exception
    assert len(sent) <= MOST[page], sent


def test_the_photos_of_a_map_are_asked_for_at_once(statements: Count) -> None:
    map_points.encode("pca", "cluster", SearchFilter())
    sent = statements(lambda: map_points.encode("pca", "cluster", SearchFilter()))
    assert len(sent) <= 14, sent
