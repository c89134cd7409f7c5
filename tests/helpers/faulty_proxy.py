"""An HTTP proxy before a server that answers some requests as a busy or broken storage does."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Fault = str
"""`slow_down`, `error`, `cut` (a body shorter than its length), `short` (a whole answer that lacks the end of
the object), `slow`, `reset`, `denied` or `unknown` (who asks); "" for none."""
Rule = Callable[[str, int], Fault]
"""From a request's path with its query, and how often it was asked before, to what goes wrong."""

_ANSWERS = {
    "slow_down": (503, "SlowDown"),
    "error": (500, "InternalError"),
    "denied": (403, "AccessDenied"),
    "unknown": (401, "InvalidAccessKeyId"),
}


class FaultyProxy:
    """Runs in threads until it is closed.

    Attributes:
        endpoint: Its address.
        rule: What goes wrong; may be changed at any time.
        requests: Method and path of each request.
        faults: What went wrong, for each fault that was answered.
    """

    def __init__(
        self,
        server: str,
        rule: Rule = lambda path, asked: "",
        change: Callable[[str, bytes], bytes] = lambda path, body: body,
    ) -> None:
        """Start it.

        Args:
            server: The address of the real server.
            rule: What goes wrong.
            change: From a request's path and the body of its answer to the body that is sent.
        """
        self.rule = rule
        self.change = change
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self._asked: dict[str, int] = {}
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, urlsplit(server).netloc))
        self._http.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> FaultyProxy:
        """The proxy."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End it."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def next_fault(self, method: str, path: str) -> Fault:
        """Record a request, and say what goes wrong with it."""
        with self._lock:
            asked = self._asked.get(path, 0)
            self._asked[path] = asked + 1
            self.requests.append((method, path))
            fault = self.rule(path, asked)
            if fault:
                self.faults.append(fault)
            return fault


def _error(path: str, status: int, code: str) -> bytes:
    """What S3, or Google's storage, says of an error."""
    if "/storage/v1/" in path:
        return json.dumps({"error": {"code": status, "message": "No."}}).encode()
    return f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()


def _handler(proxy: FaultyProxy, server: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            fault = proxy.next_fault(self.command, self.path)
            if fault == "reset":
                # Closed with a reset, not with an end.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                return
            if fault in _ANSWERS:
                status, code = _ANSWERS[fault]
                body = _error(self.path, status, code)
                self._answer(status, [("Content-Type", "application/octet-stream")], body, len(body))
                return
            backend = HTTPConnection(server, timeout=60)
            try:
                backend.request(self.command, self.path, headers=dict(self.headers.items()))
                answer = backend.getresponse()
                body = answer.read()
            finally:
                backend.close()
            body = proxy.change(self.path, body)
            length = len(body) if self.command == "GET" else int(answer.headers.get("Content-Length", 0))
            kept = ("content-length", "connection", "date", "server", "transfer-encoding")
            headers = [(name, value) for name, value in answer.headers.items() if name.lower() not in kept]
            if fault == "slow":
                time.sleep(0.3)
            if fault in ("cut", "short") and self.command == "GET":
                body = body[: len(body) // 2]
                length = len(body) if fault == "short" else length
            self._answer(answer.status, headers, body, length)
            self.close_connection = self.close_connection or fault == "cut"

        do_HEAD = do_GET  # noqa: N815

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, length: int) -> None:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    return Handler
