"""Two copies of the app with one catalogue on a server, behind a proxy that asks them in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.postgresql_server import PostgresqlServer
from tests.web.proxy import Proxy, running
from tests.web.test_browser import wait_until_cancel_is_heard
from vitmae_search.library import Library

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

PASSWORD = "correct horse"


@pytest.fixture
def address(postgresql: PostgresqlServer) -> Iterator[str]:
    name = postgresql.create()
    yield postgresql.address(name)
    postgresql.drop(name)


@pytest.fixture
def copies(
    address: str, gated: Any, small: Any, start_server: Callable[..., Any], tmp_path: Path
) -> Iterator[tuple[str, str, Proxy]]:
    """The addresses of two proxies: websockets go to one copy, or to the other; and the first proxy."""
    gated.gate.touch()
    with Library.open(
        tmp_path / "a", catalog=address, embedder="gated", plugin_folders=[gated.plugins]
    ) as library:
        library.index([small.photos])
    gated.gate.unlink()
    environ = {
        "VITMAE_SEARCH_CATALOG": address,
        "VITMAE_SEARCH_PLUGINS": str(gated.plugins),
        "VITMAE_SEARCH_PASSWORD": PASSWORD,
    }
    ports = [
        start_server(tmp_path / name, "command", flags=["--trust-proxy", "127.0.0.1"], **environ).port
        for name in ("a", "b")
    ]
    one, two = Proxy(ports[0], (ports[1],)), Proxy(ports[1], (ports[0],))
    with running(one) as first, running(two) as second:
        yield f"http://127.0.0.1:{first}", f"http://127.0.0.1:{second}", one


def test_copies_share_sign_ins_uploads_marks_and_jobs(
    copies: tuple[str, str, Proxy], address: str, gated: Any, small: Any, chromium: Any, tmp_path: Path
) -> None:
    first, second, proxy = copies
    context = chromium.new_context(viewport={"width": 1200, "height": 800})
    here, there = context.new_page(), context.new_page()

    # Signed in at one, and so at both; pictures come from either.
    here.goto(f"{first}/browse")
    here.get_by_label("Password").fill(PASSWORD)
    here.get_by_role("button", name="Sign in").click()
    pictures = here.locator(".grid img")
    expect(pictures).to_have_count(14)
    here.wait_for_function(
        "[...document.querySelectorAll('.grid img')].every(image => image.complete && image.naturalWidth)"
    )
    assert len(set(proxy.asked)) == 2
    there.goto(f"{second}/library")
    expect(there.get_by_role("heading", level=1)).to_have_text("Library")

    # A job that is started at one is seen and cancelled at the other.
    here.goto(f"{first}/library")
    here.get_by_role("textbox", name="Add another folder").fill(str(gated.waiting))
    here.get_by_role("button", name="Index this folder").click()
    title = f"Indexing {gated.waiting}"
    expect(there.get_by_text(title)).to_be_visible()
    there.get_by_role("button", name="Cancel").click()
    expect(here.get_by_text("Stopping after this batch")).to_be_visible()
    wait_until_cancel_is_heard(tmp_path / "b", address)
    gated.gate.touch()
    expect(here.get_by_role("button", name="Cancel")).to_be_hidden()
    there.get_by_text("Recent runs").click()
    expect(there.get_by_text("cancelled, finished photos kept")).to_be_visible()

    # A picture that was sent to one is searched with at the other; so is a mark.
    here.goto(first)
    here.locator("input[type=file]").set_input_files(small.photos / "chelsea.jpg")
    expect(here.locator(".vs-name").first).to_contain_text("chelsea.jpg")
    there.goto(here.url.replace(first, second))
    expect(there.locator(".vs-name").first).to_contain_text("chelsea.jpg")
    expect(there.locator(".grid img").first).to_be_visible()
    with Library.open(tmp_path / "a", catalog=address) as library:
        library.mark([1], favourite=True)
    there.goto(f"{second}/browse?favourites=on")
    expect(there.locator(".grid img")).to_have_count(1)
    context.close()
