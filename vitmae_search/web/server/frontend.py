"""Streamlit's code for the browser, sent sooner: a first visit asks for ninety small files of it.

Streamlit reads each of them from disk, behind all of its middleware, and names those that draw a widget only
once the widget's message has come. Here they are kept in memory, and the first page's named with the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import streamlit
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STATIC = Path(streamlit.__file__).parent / "static"
FIRST_PAGE = ("FileUploader", "Selectbox", "Html", "BidiComponent")
"""The modules that draw the Search page, as Streamlit calls them."""

_PREFIX = "/static/"
_KINDS = {
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".woff2": b"font/woff2",
}
_LARGEST = 2**20
_FOR_EVER = b"public, immutable, max-age=31536000"  # as Streamlit says it: the names hold a hash
_PARTIAL = {b"range", b"if-none-match", b"if-modified-since"}
_IMPORT = re.compile(r"""(?:\bfrom|\bimport)\s*["']\./([\w.-]+\.js)["']""")


class Frontend:
    """ASGI middleware: answers for Streamlit's static files, and adds a `Link` header to the first page."""

    def __init__(self, app: ASGIApp, static: Path = STATIC) -> None:
        self._app = app
        self._files = {
            _PREFIX + path.relative_to(static / "static").as_posix(): path for path in _small(static)
        }
        self._kept: dict[str, bytes] = {}
        self._link = link_header(first_page_modules(static)).encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
        elif (body := self._body(scope)) is not None:
            kind = _KINDS[self._files[scope["path"]].suffix]
            length = str(len(body)).encode()
            headers = [(b"content-type", kind), (b"content-length", length), (b"cache-control", _FOR_EVER)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            first = scope["path"] == "/" and self._link
            await self._app(scope, receive, _with_link(send, self._link) if first else send)

    def _body(self, scope: Scope) -> bytes | None:
        """The file that a plain request names; None where Streamlit is to answer."""
        path = scope["path"]
        if path not in self._files or _PARTIAL.intersection(name for name, _ in scope["headers"]):
            return None
        if path not in self._kept:
            with suppress(OSError):  # gone since the server was started
                self._kept[path] = self._files[path].read_bytes()
        return self._kept.get(path)


def _small(static: Path) -> Iterator[Path]:
    """What a browser loads of Streamlit, but for the few large libraries that no page of ours needs."""
    for path in (static / "static").glob("*/*"):
        if path.suffix in _KINDS and path.stat().st_size <= _LARGEST:
            yield path


def first_page_modules(static: Path = STATIC) -> list[str]:
    """File names of the first page's modules and of all that they import, without what the index page names.

    A Streamlit whose files are called otherwise has none.
    """
    scripts, index = static / "static" / "js", static / "index.html"
    page = index.read_text("utf-8", "replace") if index.is_file() else ""
    listed = set(re.findall(r"static/js/([\w.-]+\.js)", page))
    waiting = [path.name for name in FIRST_PAGE for path in scripts.glob(f"{name}.*.js")]
    found: dict[str, None] = {}
    while waiting:
        name = waiting.pop(0)
        if name not in found and name not in listed and (scripts / name).is_file():
            found[name] = None
            waiting += _IMPORT.findall((scripts / name).read_text("utf-8", "replace"))
    return list(found)


def link_header(modules: Iterable[str]) -> str:
    """A `Link` header's value, relative to the page as the index page's own links are."""
    return ", ".join(f"<./static/js/{name}>; rel=modulepreload; crossorigin" for name in modules)


def _with_link(send: Send, link: bytes) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"link", link)]}
        await send(message)

    return wrapped
