"""Pages have addresses, and nothing else is a page."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from tests.web.server.test_app import status
from vitmae_search.web.server.addresses import PAGES, KnownAddresses
from vitmae_search.web.server.app import MAIN_SCRIPT


@pytest.fixture
def client() -> TestClient:
    """Over a server that, as Streamlit's does, sends its page for any address."""
    routes = [
        Route("/_stcore/health", lambda request: JSONResponse("ok")),
        Route("/{path:path}", lambda request: HTMLResponse("<title>page</title>")),
    ]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(KnownAddresses)]))


@pytest.mark.parametrize("path", ["/", *(f"/{page}" for page in PAGES), "/library/", "/library?photo=3"])
def test_a_page_is_a_page(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.text) == (200, "<title>page</title>")


@pytest.mark.parametrize("path", ["/nothing", "/library/nothing", "/index.php", "/.git/config", "/Library"])
def test_an_unknown_address_is_not_found(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "nothing at this address" in answer.text


def test_what_is_no_page_passes(client: TestClient) -> None:
    assert client.get("/_stcore/health").json() == "ok"


def test_the_pages_have_these_addresses() -> None:
    script = MAIN_SCRIPT.read_text("utf-8")
    assert tuple(re.findall(r'url_path="([a-z]+)"', script)) == PAGES


def test_a_real_server(tmp_path: Path, start_server: Callable[..., Any]) -> None:
    server = start_server(tmp_path / "library", "command")
    assert [status(server.port, path) for path in ("/", "/library", "/training")] == [200, 200, 200]
    assert [status(server.port, path) for path in ("/nothing", "/wp-admin/setup.php")] == [404, 404]
    assert status(server.port, f"/photo/{'9' * 5000}") == 404
