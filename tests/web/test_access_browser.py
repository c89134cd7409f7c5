"""A person who opens the app through a proxy, under a path, with a password, in a real Chromium."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.web.proxy import Proxy, running

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

PASSWORD = "correct horse"
StartServer = Callable[..., Any]


@pytest.fixture
def behind_proxy(small: Any, start_server: StartServer) -> Iterator[tuple[str, Any]]:
    """The address of the app behind a proxy, and the server."""
    flags = ["--base-path", "/photos", "--trust-proxy", "127.0.0.1"]
    server = start_server(
        small.folder, "command", flags=flags, base="/photos", VITMAE_SEARCH_PASSWORD=PASSWORD
    )
    with running(Proxy(server.port, forwarded_for="203.0.113.9")) as port:
        yield f"http://127.0.0.1:{port}/photos", server


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(30_000)
    yield page
    context.close()


def give(page: Any, password: str) -> None:
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def heading(page: Any) -> Any:
    return page.get_by_role("heading", level=1)


def test_sign_in_search_and_sign_out_under_a_path(
    behind_proxy: tuple[str, Any], page: Any, small: Any
) -> None:
    url, _ = behind_proxy
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"{url}/library")
    give(page, "wrong password")
    expect(page.get_by_role("alert")).to_have_text("That is not the password.")
    give(page, PASSWORD)
    expect(heading(page)).to_have_text("Library", timeout=30_000)
    assert page.url == f"{url}/library"
    page.get_by_role("link", name="Search").click()
    expect(heading(page)).to_have_text("Search")
    page.locator("input[type=file]").set_input_files(str(small.photos / "chelsea.jpg"))
    expect(page.locator(".vs-name").first).to_contain_text("chelsea.jpg", timeout=30_000)
    first = page.locator(".grid img").first
    deadline = time.monotonic() + 30
    while not first.evaluate("image => image.naturalWidth"):
        assert time.monotonic() < deadline
        page.wait_for_timeout(100)
    assert [of for of in requested if "/thumb/" in of]
    # All that it loads is below the path; the websocket is not among these requests.
    assert [of for of in requested if of.startswith("http") and not of.startswith(f"{url}/")] == []
    page.goto(url)
    expect(heading(page)).to_have_text("Search")
    page.get_by_role("link", name="Sign out").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    page.goto(f"{url}/library")
    expect(page.get_by_label("Password")).to_be_visible()


def test_a_link_with_a_token_signs_in_and_leaves_no_trace(behind_proxy: tuple[str, Any], page: Any) -> None:
    url, server = behind_proxy
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"{url}/sign-in#{PASSWORD.replace(' ', '%20')}")
    expect(heading(page)).to_have_text("Search", timeout=30_000)
    assert "correct" not in page.url
    assert not [of for of in requested[1:] if "correct" in of]
    page.go_back()
    assert "correct" not in page.url
    assert "correct" not in server.log.read_text()


def test_a_link_on_another_site_opens_the_app_for_who_has_signed_in(
    behind_proxy: tuple[str, Any], page: Any
) -> None:
    url, _ = behind_proxy
    page.goto(f"{url}/sign-in")
    give(page, PASSWORD)
    expect(heading(page)).to_have_text("Search", timeout=30_000)
    body = f'<a href="{url}/library?x=1">photos</a>'
    page.route(
        re.compile("http://elsewhere"), lambda route: route.fulfill(body=body, content_type="text/html")
    )
    page.goto("http://elsewhere.example/")
    page.get_by_role("link", name="photos").click()
    expect(heading(page)).to_have_text("Library", timeout=30_000)
    assert page.url == f"{url}/library?x=1"


def test_on_this_machine_nobody_is_asked(small: Any, start_server: StartServer, page: Any) -> None:
    server = start_server(small.folder, "command")
    page.goto(server.url)
    expect(heading(page)).to_have_text("Search", timeout=30_000)
    time.sleep(1)
    assert page.get_by_role("link", name="Sign out").count() == 0
