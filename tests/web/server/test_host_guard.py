"""Which requests are refused. The guard is called as a server calls it; test_app.py uses a real server."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from vitmae_search.web.server.host_guard import HostGuard, content_policy

Headers = Sequence[tuple[str, str]]


def ask(headers: Headers, kind: str = "http", allowed: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What the guard sends for a request with these headers; the app inside answers 200, or accepts."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"inside"})

    async def receive() -> dict[str, Any]:
        raise AssertionError("the guard reads no body")

    async def send(message: Any) -> None:
        sent.append(dict(message))

    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    asyncio.run(HostGuard(app, allowed)({"type": kind, "headers": raw}, receive, send))
    return sent


def admitted(headers: Headers, kind: str = "http", allowed: Sequence[str] = ()) -> bool:
    first = ask(headers, kind, allowed)[0]
    if kind == "websocket":
        assert first["type"] in ("websocket.accept", "websocket.close")
        return bool(first["type"] == "websocket.accept")
    assert first["status"] in (200, 403)
    return bool(first["status"] == 200)


OWN_HOSTS = ["localhost", "localhost:8501", "127.0.0.1:8501", "LOCALHOST:9", "[::1]:8501", "localhost.:80"]
FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:8501",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evil-localhost",
    "127.0.0.2",
    "192.168.1.5:8501",
    "localhost:8501:80",
    "localhost:8501@evil.example",
    "user@localhost",
    "localhost/",
    "localhost ",
    "",
    "[::2]:8501",
]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("host", OWN_HOSTS)
def test_the_names_of_this_machine_are_allowed(host: str, kind: str) -> None:
    assert admitted([("Host", host)], kind)
    assert admitted([("Host", host), ("Origin", f"http://{host}")], kind)


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_other_names_are_refused(host: str, kind: str) -> None:
    assert not admitted([("Host", host)], kind)
    # DNS rebinding: the page's own origin and the host agree, and are both foreign.
    assert not admitted([("Host", host), ("Origin", f"http://{host}")], kind)


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_missing_or_doubled_host_is_refused(kind: str) -> None:
    assert not admitted([], kind)
    assert not admitted([("Host", "localhost"), ("Host", "localhost")], kind)
    assert not admitted([("Host", "localhost"), ("Host", "evil.example")], kind)


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://evil.example:8501",
        "null",
        "",
        "file://",
        "http://localhost:3000",  # another program's page on this machine
        "http://127.0.0.1:8501",  # the same machine, yet another origin to a browser
        "chrome-extension://localhost:8501",
        "http://[",
    ],
)
def test_pages_of_other_origins_are_refused(origin: str, kind: str) -> None:
    assert not admitted([("Host", "localhost:8501"), ("Origin", origin)], kind)


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_listed_name_is_allowed_also_behind_a_proxy_that_rewrites_the_host(kind: str) -> None:
    listed = ["Photos.Example"]
    assert admitted([("Host", "photos.example")], kind, listed)
    assert admitted([("Host", "photos.example"), ("Origin", "https://photos.example")], kind, listed)
    assert admitted([("Host", "localhost:8501"), ("Origin", "https://photos.example")], kind, listed)
    assert not admitted([("Host", "evil.photos.example")], kind, listed)
    assert not admitted([("Host", "photos.example"), ("Origin", "https://evil.example")], kind, listed)


def test_another_sites_picture_or_script_tag_is_refused_and_a_link_is_not() -> None:
    def from_elsewhere(mode: str) -> Headers:
        return [("Host", "localhost"), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", mode)]

    assert not admitted(from_elsewhere("no-cors"))
    assert admitted(from_elsewhere("navigate"))
    assert admitted([("Host", "localhost"), ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "no-cors")])


@pytest.mark.parametrize("host", ["localhost", "evil.example"])
def test_every_answer_carries_the_security_headers(host: str) -> None:
    headers = dict(ask([("Host", host)])[0]["headers"])
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"cross-origin-resource-policy"] == b"same-origin"
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert b"frame-ancestors 'none'" in headers[b"content-security-policy"]


def test_a_refusal_says_what_to_do() -> None:
    start, body = ask([("Host", "evil.example")])
    assert start["status"] == 403
    assert b"VITMAE_SEARCH_ALLOWED_HOSTS" in body["body"]
    assert b"inside" not in body["body"]


def test_no_inline_script_runs_but_streamlits_own(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text("<script>\n one\n</script><script src='x.js'></script><script>two</script>")
    expected = [b64encode(sha256(body).digest()).decode() for body in (b"\n one\n", b"two")]
    policy = content_policy(page)
    scripts = next(rule for rule in policy.split("; ") if rule.startswith("script-src"))
    assert all(f"'sha256-{digest}'" in scripts for digest in expected)
    assert "unsafe-inline" not in scripts
    assert "'unsafe-eval'" not in scripts
    assert "sha256" not in content_policy(tmp_path / "no such page")
