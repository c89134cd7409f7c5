"""Refuses requests that are not for the app, on HTTP and on the websocket alike.

A page of any other site can make a browser send requests to 127.0.0.1, and with DNS rebinding its own
name can come to mean 127.0.0.1. So a request must name this machine in `Host`, or a name that was allowed,
and one that carries an `Origin` must come from the app itself. Streamlit's own host list covers the websocket
only.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import streamlit
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?P<port>:[0-9]{1,5})?")

_INDEX_PAGE = Path(streamlit.__file__).parent / "static" / "index.html"


def content_policy(index_page: Path = _INDEX_PAGE) -> str:
    """The Content-Security-Policy: all is loaded from the app; inline scripts are those of `index_page`."""
    scripts = " ".join(f"'sha256-{digest}'" for digest in inline_scripts(index_page))
    return "; ".join(
        (
            "default-src 'self'",
            # Streamlit loads inline components from blob: and its Arrow reader compiles WebAssembly.
            f"script-src 'self' 'wasm-unsafe-eval' blob: {scripts}".rstrip(),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


def inline_scripts(page: Path) -> list[str]:
    """The digests of a page's inline scripts, as a content policy names them; none without a page."""
    text = page.read_text("utf-8") if page.is_file() else ""
    digests = (
        hashlib.sha256(body.encode()).digest() for body in re.findall(r"<script>(.*?)</script>", text, re.S)
    )
    return [base64.b64encode(digest).decode("ascii") for digest in digests]


_SECURITY_HEADERS = (
    (b"content-security-policy", content_policy().encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)

_REFUSAL = (
    "This app answers only to its own machine (localhost or 127.0.0.1). "
    "To let another name in, start it with --host-name NAME, or list it in VITMAE_SEARCH_ALLOWED_HOSTS.\n"
)


class HostGuard:
    """ASGI middleware: refuses foreign `Host` and `Origin`, and adds the security headers.

    Args:
        app: What is protected.
        allowed_hosts: Names without a port, beside this machine's own.
        allow_addresses: Whether `Host` may be any IP address, as where the app is opened from other machines.
            No other site's page can pretend to be one: DNS rebinding needs a name.
    """

    def __init__(
        self, app: ASGIApp, allowed_hosts: Collection[str] = (), *, allow_addresses: bool = False
    ) -> None:
        self._app, self._allow_addresses = app, allow_addresses
        self._allowed_hosts = frozenset(host.lower().rstrip(".") for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on.

        Args:
            scope: The ASGI connection.
            receive: As ASGI has it.
            send: As ASGI has it.
        """
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif not self._allows(scope["headers"], websocket=scope["type"] == "websocket"):
            await _refuse(scope, send)
        else:
            await self._app(_with_own_origin(scope), receive, _with_security_headers(send))

    def _allows(self, headers: Iterable[tuple[bytes, bytes]], *, websocket: bool) -> bool:
        hosts = _values(headers, b"host")
        origins = _values(headers, b"origin")
        if len(hosts) != 1 or len(origins) > 1:
            return False
        host = _HOST.fullmatch(hosts[0].lower())
        if host is None or not self._allows_name(host["name"].rstrip(".")):
            return False
        if origins:
            return self._allows_origin(origins[0], hosts[0])
        return websocket or not _embedded_elsewhere(headers)

    def _allows_name(self, name: str) -> bool:
        if name in LOCAL_NAMES or name in self._allowed_hosts:
            return True
        return self._allow_addresses and _is_address(name)

    def _allows_origin(self, origin: str, host: str) -> bool:
        """Whether it is the app's own origin, or a listed name, as behind a proxy that rewrites `Host`."""
        try:
            parts = urlsplit(origin.lower())
            name = parts.hostname or ""
        except ValueError:
            return False
        if parts.scheme not in ("http", "https"):
            return False
        return parts.netloc == host.lower() or name.rstrip(".") in self._allowed_hosts


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key == name]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _with_own_origin(scope: Scope) -> Scope:
    """The connection, with an `Origin` that agrees with `Host`.

    Behind a proxy that rewrites `Host` they differ. Streamlit would refuse the websocket then, after asking
    another site for this machine's public address.
    """
    host = _values(scope["headers"], b"host")[0].encode("latin-1")
    headers = [(name, b"http://" + host if name == b"origin" else value) for name, value in scope["headers"]]
    return {**scope, "headers": headers}


def _embedded_elsewhere(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether another site's page loads it as an image or script; following a link to the app is allowed."""
    site = _values(headers, b"sec-fetch-site")
    mode = _values(headers, b"sec-fetch-mode")
    return site == ["cross-site"] and mode != ["navigate"]


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": "host or origin not allowed"})
        return
    body = _REFUSAL.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        *_SECURITY_HEADERS,
    ]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _with_security_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            present = {key.lower() for key, _ in headers}
            headers += [pair for pair in _SECURITY_HEADERS if pair[0] not in present]
            message = {**message, "headers": headers}
        await send(message)

    return wrapped
