"""TCP_NODELAY is set on a server that is started the way Streamlit starts it."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket
from websockets.sync.client import connect

from vitmae_search.web.server import app as server
from vitmae_search.web.server.connections import NoDelay


def delays(receive: object) -> str:
    """Whether the connection of a request holds small pieces back."""
    connection = receive.__self__.transport.get_extra_info("socket")  # type: ignore[attr-defined]
    return "no" if connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) else "yes"


async def http(request: Request) -> PlainTextResponse:
    return PlainTextResponse(delays(request.receive))


async def websocket(connection: WebSocket) -> None:
    await connection.accept()
    await connection.send_text(delays(connection._receive))
    await connection.close()


@contextmanager
def serving(middleware: list[Middleware]) -> Iterator[int]:
    """The port of a server on a socket like Streamlit's, which names no protocol."""
    routes = [Route("/", http), WebSocketRoute("/ws", websocket)]
    app = Starlette(routes=routes, middleware=middleware)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        runs = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="websockets-sansio"))
        thread = threading.Thread(target=runs.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            runs.should_exit = True
            thread.join()


def delays_of(port: int) -> tuple[str, str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
        over_http = answer.read().decode()
    with connect(f"ws://127.0.0.1:{port}/ws") as opened:
        return over_http, str(opened.recv())


def test_requests_and_websockets_have_nagles_algorithm_off() -> None:
    with serving(server.middleware()) as port:
        assert delays_of(port) == ("no", "no")


def test_without_access_to_the_socket_the_answer_is_the_same() -> None:
    async def answer(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("inside")

    app = Starlette(routes=[Route("/", answer)], middleware=[Middleware(NoDelay)])
    assert TestClient(app).get("/").text == "inside"
