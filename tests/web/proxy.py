"""A small reverse proxy, as nginx or Caddy would be in front of the app: one request for each connection."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Proxy:
    """Passes everything on to 127.0.0.1:`port`, and adds the headers that proxies add.

    Attributes:
        port: Where the app listens.
        others: Where copies of it listen. All of them get requests in turns, and `port` all websockets.
        host: What it makes of `Host`; None leaves it, as Caddy does.
        forwarded_for, forwarded_proto: The headers of that name; None leaves what the client sent.
        asked: Which port each request went to.
    """

    port: int
    others: tuple[int, ...] = ()
    host: str | None = None
    forwarded_for: str | None = None
    forwarded_proto: str | None = None
    asked: list[int] = field(default_factory=list)

    def port_for(self, head: bytes) -> int:
        """Where a request goes, by its head."""
        ports = self.port, *self.others
        is_websocket = b"\r\nupgrade: websocket" in head.lower()
        port = self.port if is_websocket else ports[len(self.asked) % len(ports)]
        if not is_websocket:
            self.asked.append(port)
        return port

    def head(self, head: bytes) -> bytes:
        lines = head.split(b"\r\n")
        headers = [line for line in lines[1:] if line]
        upgrades = any(line.lower().startswith(b"upgrade:") for line in headers)
        set_here = {
            b"host": self.host,
            b"x-forwarded-for": self.forwarded_for,
            b"x-forwarded-proto": self.forwarded_proto,
            b"connection": None if upgrades else "close",
        }
        kept = [line for line in headers if set_here.get(line.split(b":")[0].lower()) is None]
        added = [name + b": " + value.encode() for name, value in set_here.items() if value is not None]
        return b"\r\n".join([lines[0], *kept, *added, b"", b""])


class _Server(socketserver.ThreadingTCPServer):
    """One thread for each connection; `server_close` waits for them."""

    request_queue_size = 100

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy
        self.clients: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.clients.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.clients.discard(request)

    def end(self) -> None:
        """Take no more connections, and end those that there are."""
        self.shutdown()
        for client in self.clients.copy():
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server, client = self.server, self.request
        assert isinstance(server, _Server)
        with suppress(OSError):
            head = _head(client)
            with socket.create_connection(("127.0.0.1", server.proxy.port_for(head))) as app:
                app.sendall(server.proxy.head(head))
                answering = threading.Thread(target=_pass_on, args=(app, client))
                answering.start()
                _pass_on(client, app)
                answering.join()


def _head(client: socket.socket) -> bytes:
    """A request until the empty line, read byte by byte so that what follows is left."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        if not (byte := client.recv(1)):
            raise ConnectionError
        head += byte
    return bytes(head)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Send all that comes, and then that nothing comes any more."""
    with suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)
    for each, how in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with suppress(OSError):
            each.shutdown(how)


@contextmanager
def running(proxy: Proxy) -> Iterator[int]:
    """The proxy in threads; its port on 127.0.0.1."""
    server = _Server(proxy)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.end()
        thread.join()
