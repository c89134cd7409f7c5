"""Streamlit's own files, sent from memory, and the modules that are announced with the first page."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send
from streamlit.web.server.starlette.starlette_static_routes import create_streamlit_static_handler

from vitmae_search.web.server.frontend import (
    FIRST_PAGE,
    STATIC,
    FrontendCache,
    first_page_modules,
    link_header,
)


def client(static: Path = STATIC) -> TestClient:
    """Streamlit's static files behind ours, each answer of Streamlit's own marked."""
    inner = create_streamlit_static_handler(str(static), None)

    async def marked(scope: Scope, receive: Receive, send: Send) -> None:
        async def wrapped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-inner", b"1")]}
            await send(message)

        await inner(scope, receive, wrapped)

    return TestClient(
        Starlette(routes=[Mount("/", app=marked)], middleware=[Middleware(FrontendCache, static=static)])
    )


def announced(link: str) -> list[str]:
    """The files that a header names."""
    return re.findall(r"<\./static/js/([^>]+)>; rel=modulepreload; crossorigin", link)


def test_the_first_page_names_modules_that_streamlit_has() -> None:
    names = announced(client().get("/").headers["link"])
    assert names == first_page_modules()
    assert len(set(names)) == len(names)
    for module in FIRST_PAGE:
        assert any(name.startswith(f"{module}.") for name in names), module
    index = (STATIC / "index.html").read_text("utf-8")
    for name in names:
        assert (STATIC / "static" / "js" / name).is_file()
        assert name not in index


def test_all_imports_of_an_announced_module_are_announced_too() -> None:
    names = first_page_modules()
    there = {*names, *re.findall(r"static/js/([\w.-]+\.js)", (STATIC / "index.html").read_text("utf-8"))}
    for name in names:
        text = (STATIC / "static" / "js" / name).read_text("utf-8")
        assert set(re.findall(r'(?:from|import)"\./([^"]+)"', text)) <= there


@pytest.mark.parametrize("path", ["/library", "/index.html", "/static/js/none.js"])
def test_only_the_first_page_has_the_link_header(path: str) -> None:
    answer = client().get(path)
    assert "x-inner" in answer.headers
    assert "link" not in answer.headers


@pytest.mark.parametrize("pattern", ["js/index.*.js", "css/*.css", "media/*.woff2"])
def test_files_are_what_streamlit_sends(pattern: str) -> None:
    path = min((STATIC / "static").glob(pattern))
    address = f"/static/{path.parent.name}/{path.name}"
    ours = client().get(address)
    whole = client().get(address, headers={"If-None-Match": '"another"'})
    assert "x-inner" in whole.headers
    assert "x-inner" not in ours.headers
    assert ours.content == whole.content == path.read_bytes()
    for name in ("content-type", "content-length", "cache-control"):
        assert ours.headers[name] == whole.headers[name]


def test_a_file_is_read_once(tmp_path: Path) -> None:
    static = copy_of(tmp_path)
    script = static / "static" / "js" / "a.js"
    script.write_text("let a;")
    browser = client(static)
    assert browser.get("/static/js/a.js").text == "let a;"
    script.unlink()
    assert browser.get("/static/js/a.js").text == "let a;"
    script.write_text("let b;")
    replaced = client(static)
    replaced.get("/")  # the list of files is made with the first request
    script.unlink()
    assert "x-inner" in replaced.get("/static/js/a.js").headers


def test_other_requests_are_passed_on_to_streamlit(tmp_path: Path) -> None:
    static = copy_of(tmp_path)
    (static / "static" / "js" / "a.js").write_text("let a;")
    (static / "static" / "js" / "large.js").write_bytes(b" " * (2**20 + 1))
    (tmp_path / "secret.js").write_text("secret")
    browser = client(static)
    part = browser.get("/static/js/a.js", headers={"Range": "bytes=0-2"})
    assert (part.status_code, part.text) == (206, "let")
    assert "x-inner" in browser.head("/static/js/a.js").headers
    assert "x-inner" in browser.get("/static/js/large.js").headers
    for path in ("/static/js/..%2f..%2f..%2fsecret.js", "/static/../../secret.js", "/static//js/a.js"):
        assert "secret" not in browser.get(path).text


def test_a_streamlit_without_these_files_is_left_alone(tmp_path: Path) -> None:
    static = copy_of(tmp_path)
    assert "link" not in client(static).get("/").headers
    assert first_page_modules(tmp_path / "none") == []
    assert link_header([]) == ""
    passed = Starlette(
        routes=[Mount("/", app=PlainTextResponse("inside"))],
        middleware=[Middleware(FrontendCache, static=tmp_path / "none")],
    )
    assert TestClient(passed).get("/").text == "inside"


def copy_of(folder: Path) -> Path:
    """A static folder with an index page and no modules."""
    static = folder / "folder" / "static"
    (static / "static" / "js").mkdir(parents=True)
    shutil.copy(STATIC / "index.html", static)
    return static
