"""Disable Nagle's algorithm (TCP_NODELAY) on uvicorn's sockets.

asyncio does so itself for sockets that it knows to be TCP. Streamlit makes its listening socket without
naming the protocol, so Nagle's algorithm stays on: an answer's body waits until the browser has acknowledged
its head, which takes 40 ms on Linux.
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
        """Set the option, then pass the request on.

        Args:
            scope: The ASGI connection.
            receive: As ASGI has it; through it uvicorn's transport is found.
            send: As ASGI has it.
        """
        if scope["type"] in ("http", "websocket"):
            set_no_delay(receive)
        await self._app(scope, receive, send)


def set_no_delay(receive: Receive) -> None:
    """Set TCP_NODELAY on the connection behind `receive`, if it is a method of uvicorn's protocol object.

    ASGI itself gives no access to the socket.
    """
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is not None:
        connection = transport.get_extra_info("socket")
        with suppress(AttributeError, OSError):  # no socket, a closed one, or not TCP
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
