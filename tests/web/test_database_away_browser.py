"""A page whose database is killed says so, and comes back by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.postgresql_server import PostgresqlServer
from vitmae_search.library import Library

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect


def test_a_page_comes_back_when_its_database_does(
    small: Any, start_server: Callable[..., Any], page: Any, tmp_path: Path
) -> None:
    server = PostgresqlServer()
    try:
        address = server.address(server.create())
        with Library.open(tmp_path / "library", catalog=address, embedder="color_layout") as library:
            library.index([small.photos])
        port = start_server(tmp_path / "library", "command", VITMAE_SEARCH_CATALOG=address).port
        server.kill()
        page.goto(f"http://127.0.0.1:{port}/browse")
        expect(page.get_by_role("alert")).to_contain_text("does not answer")
        server.start()
        expect(page.locator(".grid img").first).to_be_visible(timeout=20_000)
        expect(page.get_by_role("alert")).to_have_count(0)
    finally:
        server.close()


def test_the_library_page_sees_a_database_of_vectors_come_back(
    small: Any, start_server: Callable[..., Any], page: Any, tmp_path: Path
) -> None:
    server = PostgresqlServer()
    try:
        name = server.create()
        server.run("CREATE EXTENSION vector", name)
        address = server.address(name)
        with Library.open(tmp_path / "library", vectors=address, embedder="color_layout") as library:
            library.index([small.photos])
        port = start_server(tmp_path / "library", "command", VITMAE_SEARCH_VECTORS=address).port
        server.kill()
        page.goto(f"http://127.0.0.1:{port}/library")
        expect(page.get_by_text("cannot be used (connection failed").first).to_be_visible()
        expect(
            page.get_by_text("What searches use does not answer. Start the vector database")
        ).to_be_visible()
        server.start()
        expect(page.get_by_text("up to date with the catalogue").first).to_be_visible(timeout=20_000)
        expect(page.get_by_text("cannot be used (connection failed")).to_have_count(0)
    finally:
        server.close()
