"""Answers leave at once.

Streamlit makes its listening socket without naming TCP, so asyncio does not recognise it and leaves Nagle's
algorithm on: an answer's body waits until the browser has acknowledged its head, which takes 40 ms on Linux.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send


class NoDelay:
    """ASGI middleware: sets TCP_NODELAY on the connection of each request and websocket, where it can."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            send_at_once(receive)
        await self._app(scope, receive, send)


def send_at_once(receive: Receive) -> None:
    """`receive` is a method of uvicorn's, whose object has the connection; ASGI itself has no door to it."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is not None:
        connection = transport.get_extra_info("socket")
        with suppress(AttributeError, OSError):  # no socket, one that is closed by now, or none of TCP
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
