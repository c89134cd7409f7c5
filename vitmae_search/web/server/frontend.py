"""Faster delivery of Streamlit's own browser code: a first visit loads ninety small files of it.

Streamlit reads each of them from disk, behind all of its middleware, and the browser learns of the modules
that draw a widget only with the widget's message. Here the files are cached in memory, and the modules of the
first page are announced with the page (`Link: rel=modulepreload`).
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
"""The modules that draw the Search page, by the beginning of their file names."""

_PREFIX = "/static/"
_KINDS = {
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".woff2": b"font/woff2",
}
_MAX_BYTES = 2**20
_CACHE_CONTROL = b"public, immutable, max-age=31536000"  # as Streamlit has it: the names hold a hash
_CONDITIONAL = {b"range", b"if-none-match", b"if-modified-since"}
_IMPORT = re.compile(r"""(?:\bfrom|\bimport)\s*["']\./([\w.-]+\.js)["']""")


class FrontendCache:
    """ASGI middleware: answers for Streamlit's static files, and adds a `Link` header to the first page.

    Args:
        app: The app.
        static: Streamlit's folder of browser code.
        base_path: What the app's addresses begin with, "/photos"; "" is nothing.
    """

    def __init__(self, app: ASGIApp, static: Path = STATIC, base_path: str = "") -> None:
        self._app, self._first_page = app, f"{base_path}/"
        self._files = {
            base_path + _PREFIX + path.relative_to(static / "static").as_posix(): path
            for path in _small_files(static)
        }
        self._contents: dict[str, bytes] = {}
        self._link = link_header(first_page_modules(static)).encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from memory, or pass the request on.

        Args:
            scope: The ASGI connection.
            receive: As ASGI has it.
            send: As ASGI has it.
        """
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
        elif (body := self._body(scope)) is not None:
            kind = _KINDS[self._files[scope["path"]].suffix]
            length = str(len(body)).encode()
            headers = [
                (b"content-type", kind),
                (b"content-length", length),
                (b"cache-control", _CACHE_CONTROL),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            first = scope["path"] == self._first_page and self._link
            await self._app(scope, receive, _with_link(send, self._link) if first else send)

    def _body(self, scope: Scope) -> bytes | None:
        """The contents of the requested file; None where Streamlit is to answer."""
        path = scope["path"]
        if path not in self._files or _CONDITIONAL.intersection(name for name, _ in scope["headers"]):
            return None
        if path not in self._contents:
            with suppress(OSError):  # deleted since the server was started
                self._contents[path] = self._files[path].read_bytes()
        return self._contents.get(path)


def _small_files(static: Path) -> Iterator[Path]:
    """Streamlit's browser files, without the few large libraries that no page of ours needs."""
    for path in (static / "static").glob("*/*"):
        if path.suffix in _KINDS and path.stat().st_size <= _MAX_BYTES:
            yield path


def first_page_modules(static: Path = STATIC) -> list[str]:
    """File names of the first page's modules and of all that they import.

    Without those that the index page names itself. If Streamlit's files have other names, there are none.
    """
    scripts, index = static / "static" / "js", static / "index.html"
    page = index.read_text("utf-8", "replace") if index.is_file() else ""
    listed = set(re.findall(r"static/js/([\w.-]+\.js)", page))
    queue = [path.name for name in FIRST_PAGE for path in scripts.glob(f"{name}.*.js")]
    found: dict[str, None] = {}
    while queue:
        name = queue.pop(0)
        if name not in found and name not in listed and (scripts / name).is_file():
            found[name] = None
            queue += _IMPORT.findall((scripts / name).read_text("utf-8", "replace"))
    return list(found)


def link_header(modules: Iterable[str]) -> str:
    """The value of a `Link` header, with addresses relative to the page."""
    return ", ".join(f"<./static/js/{name}>; rel=modulepreload; crossorigin" for name in modules)


def _with_link(send: Send, link: bytes) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"link", link)]}
        await send(message)

    return wrapped
