"""A picture that is named by its address: from public servers only, within limits of time and size."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vitmae_search.errors import PhotoError, PhotoTooLarge, UnreadablePhoto, UnsupportedPhoto
from vitmae_search.photos.web_picture import IpAddress, fetch_picture, is_public

PICTURE = b"\x89PNG" + bytes(range(256)) * 40


class Handler(BaseHTTPRequestHandler):
    """What a server may do to who asks it."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))  # type: ignore[attr-defined]
        path, _, query = self.path.partition("?")
        getattr(self, path.strip("/").replace("/", "_").partition(".")[0], self.missing)(query)

    def picture(self, query: str) -> None:
        self.reply(200, PICTURE, "image/png")

    def page(self, query: str) -> None:
        self.reply(200, b"<html>", "text/html; charset=utf-8")

    def moved(self, query: str) -> None:
        self.send_response(302)
        self.send_header("Location", query)
        self.end_headers()

    def loop(self, query: str) -> None:
        self.moved("/loop")

    def missing(self, query: str) -> None:
        self.reply(404, b"no", "text/plain")

    def large(self, query: str) -> None:
        self.send_response(200)
        self.end_headers()  # without a length
        for _ in range(1000):
            self.wfile.write(bytes(10_000))

    def short(self, query: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(PICTURE[:100])

    def empty(self, query: str) -> None:
        self.reply(200, b"", "image/png")

    def drip(self, query: str) -> None:
        """Send a byte of a header now and then, for ever."""
        while True:
            self.wfile.write(b"H")
            time.sleep(0.05)

    def reply(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(OSError):  # who asked has gone
            super().handle()


Serve = Callable[[str], str]


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def at(server: ThreadingHTTPServer) -> Serve:
    return lambda path: f"http://127.0.0.1:{server.server_port}{path}"


def this_server(address: IpAddress) -> bool:
    """The allowance that only tests give."""
    return str(address) == "127.0.0.1"


def test_the_bytes_come_and_nothing_of_the_person_goes(server: ThreadingHTTPServer, at: Serve) -> None:
    assert fetch_picture(at("/picture.png?a=1 2".replace(" ", "%20")), is_allowed=this_server) == PICTURE
    ((path, headers),) = server.asked  # type: ignore[attr-defined]
    assert path == "/picture.png?a=1%202"
    assert set(headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}
    assert headers["User-Agent"] == "vitmae-search"


def test_nothing_is_asked_of_a_server_that_is_not_public(server: ThreadingHTTPServer, at: Serve) -> None:
    with pytest.raises(UnreadablePhoto, match=r"127\.0\.0\.1, which is no public address"):
        fetch_picture(at("/picture.png"))
    assert server.asked == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001"),
        *(
            "0",
            "0.0.0.0",
            "localhost",
            "LOCALHOST",
            "localhost.",
            "①②⑦.⓪.⓪.①",
            "１２７.0.0.1",
            "127。0。0。1",
        ),
        *("[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]"),
        *(
            "[64:ff9b::7f00:1]",
            "[64:ff9b::a00:1]",
            "[2002:7f00:1::]",
            "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
        ),
        *("10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254", "100.64.0.1"),
        *(
            "[fe80::1]",
            "[fe80::1%25lo]",
            "[fc00::1]",
            "[fd12:3456::1]",
            "[fec0::1]",
            "[ff02::1]",
            "224.0.0.1",
        ),
        *("255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.9", "[2001:db8::1]"),
    ],
)
def test_every_spelling_of_what_is_not_public_is_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*args: object) -> None:
        pytest.fail(f"{host} was connected to: {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(UnreadablePhoto):
        fetch_picture(f"http://{host}/picture.png")


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
)
def test_what_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://example.org/a.jpg", "only addresses of http and https"),
        ("file:///etc/passwd", "only addresses of http and https"),
        ("gopher://127.0.0.1:70/1", "only addresses of http and https"),
        ("http:///a.jpg", "names no server"),
        ("http://", "names no server"),
        ("http://me:secret@example.org/", "name or password"),
        ("http://8.8.8.8@127.0.0.1/", "name or password"),
        ("http://example.org:99999/", "could not be asked"),
        ("http://exa mple.org/", "no spaces"),
        ("http://example.org/\r\nX-Evil: 1", "no spaces"),
        ("http://127.0.0.1\\@8.8.8.8/", "no spaces"),
        ("http://" + "a" * 300 + ".org/", "there is no server"),
        ("http://no-such-server.invalid/", "there is no server"),
    ],
)
def test_what_is_no_address_of_a_picture(url: str, says: str) -> None:
    with pytest.raises(PhotoError, match=says) as caught:
        fetch_picture(url)
    assert "secret" not in str(caught.value)


def test_each_redirection_is_checked(server: ThreadingHTTPServer, at: Serve) -> None:
    assert fetch_picture(at("/moved?/picture.png"), is_allowed=this_server) == PICTURE
    assert fetch_picture(at(f"/moved?{at('/picture.png')}"), is_allowed=this_server) == PICTURE
    server.asked.clear()  # type: ignore[attr-defined]
    for target in (f"http://127.0.0.2:{server.server_port}/picture.png", "file:///etc/passwd", "//[::1]/"):
        with pytest.raises(UnreadablePhoto):
            fetch_picture(at(f"/moved?{target}"), is_allowed=this_server)
    assert {path.partition("?")[0] for path, _ in server.asked} == {"/moved"}  # type: ignore[attr-defined]
    with pytest.raises(UnreadablePhoto, match="without end"):
        fetch_picture(at("/loop"), is_allowed=this_server)


def test_a_name_is_resolved_once_and_cannot_answer_otherwise_later(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the name leads to a checked address first, and to another one when asked again."""
    answers = [("127.0.0.1", server.server_port), ("127.0.0.2", server.server_port)]
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda *args, **more: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", answers.pop(0))],
    )
    url = f"http://rebinding.example:{server.server_port}/picture.png"
    assert fetch_picture(url, is_allowed=this_server) == PICTURE
    assert len(answers) == 1
    assert server.asked[0][1]["Host"] == f"rebinding.example:{server.server_port}"  # type: ignore[attr-defined]


def test_one_address_that_is_not_public_refuses_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: rows)
    with pytest.raises(UnreadablePhoto, match=r"10\.0\.0\.1, which is no public"):
        fetch_picture("http://both.example/")


@pytest.mark.parametrize(
    ("path", "error", "says"),
    [
        ("/page", UnsupportedPhoto, "no picture, but text/html"),
        ("/nothing", UnreadablePhoto, "answers 404"),
        ("/large", PhotoTooLarge, "larger than"),
        ("/picture", PhotoTooLarge, "larger than"),
        ("/short", UnreadablePhoto, "in the middle"),
        ("/empty", UnreadablePhoto, "sends nothing"),
    ],
)
def test_what_servers_send_instead(at: Serve, path: str, error: type[PhotoError], says: str) -> None:
    with pytest.raises(error, match=says):
        fetch_picture(at(path), is_allowed=this_server, max_bytes=9000)


def test_a_server_that_drips_is_given_up(at: Serve) -> None:
    with pytest.raises(UnreadablePhoto, match=r"longer than 0\.3 s"):
        fetch_picture(at("/drip"), is_allowed=this_server, max_seconds=0.3)
