"""A small reverse proxy, as nginx or Caddy would be in front of the app: one request for each connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


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

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                app_reader, app_writer = await asyncio.open_connection("127.0.0.1", self.port_for(head))
                writers.append(app_writer)
                app_writer.write(self.head(head))
                await asyncio.gather(_pass_on(reader, app_writer), _pass_on(app_reader, writer))
            finally:
                for each in writers:
                    each.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    writer.close()


@contextmanager
def running(proxy: Proxy) -> Iterator[int]:
    """The proxy in a thread; its port on 127.0.0.1."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    starting = asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    server = asyncio.run_coroutine_threadsafe(starting, loop).result(10)
    yield server.sockets[0].getsockname()[1]

    async def end() -> None:
        server.close()
        await asyncio.sleep(0.05)  # a task that is cancelled before it began would leave its socket open
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0.05)  # in which the transports close their sockets

    asyncio.run_coroutine_threadsafe(end(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
