"""Requests that no browser sends: each is answered soon, shows no other file, and the app goes on."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from vitmae_search.library import Library

StartServer = Callable[..., Any]
AT_ONCE = 20.0


@pytest.fixture
def port(small: Any, start_server: StartServer) -> int:
    """The port of an app over the small library."""
    found: int = start_server(small.folder, "command").port
    return found


def raw(port: int, request: bytes, *, end: bool = True) -> bytes:
    """What the server answers to these bytes; `end` closes our side after them."""
    with socket.create_connection(("127.0.0.1", port), timeout=AT_ONCE) as connection:
        answer = bytearray()
        try:
            connection.sendall(request)
            if end:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(2**16):
                answer += part
        except ConnectionError:
            pass  # it hung up, which is an answer
        return bytes(answer)


def get(port: int, path: bytes, *lines: bytes, method: bytes = b"GET") -> tuple[int, bytes]:
    """The status and all bytes of the answer to a request with these header lines."""
    head = [method + b" " + path + b" HTTP/1.1", b"Host: 127.0.0.1", b"Connection: close", *lines]
    answer = raw(port, b"\r\n".join(head) + b"\r\n\r\n", end=False)
    return (int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0), answer


def is_well(port: int) -> bool:
    return get(port, b"/_stcore/health")[0] == 200


PASSWD = Path("/etc/passwd").read_bytes()[:40]

PATHS = [
    b"/photo/../../../../etc/passwd",
    b"/photo/..%2f..%2f..%2f..%2fetc%2fpasswd",
    b"/photo/%2e%2e/%2e%2e/etc/passwd",
    b"/photo//etc/passwd",
    b"/photo/file:///etc/passwd",
    b"/thumb/1/../../../../etc/passwd",
    b"/thumb/1%00.jpg",
    b"/photo/1;/etc/passwd",
    b"/photo/\\..\\..\\etc\\passwd",
    b"/photo/%5c%5chost%5cshare",
    b"/static/../../../../../../etc/passwd",
    b"/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    b"/media/../../etc/passwd",
    b"/media/..%2f..%2fetc%2fpasswd",
    b"/component/x/../../../etc/passwd",
    b"/component/../../../etc/passwd",
    b"/_stcore/bidi-components/../../../etc/passwd",
    b"//evil.example/photo/1",
    b"/app/static/../../app.py",
    b"/app.py",
    b"/.streamlit/secrets.toml",
    b"/catalog.sqlite3",
    b"/photo/-1",
    b"/photo/+1",
    b"/photo/1e3",
    b"/photo/0x1",
    b"/photo/\xd9\xa1",
    b"/photo/%D9%A1",
    b"/photo/" + b"9" * 60_000,
    b"/photo/1?" + b"a=" * 30_000,
    b"@evil.example",
    b"http://evil.example/photo/1",
    b"*",
]


def test_paths_lead_to_no_other_file(port: int) -> None:
    for path in PATHS:
        for line in ((), (b"Accept: text/html",)):
            began = time.monotonic()
            status, answer = get(port, path, *line)
            assert time.monotonic() - began < AT_ONCE, path[:80]
            assert PASSWD not in answer, path[:80]
            assert b"st.App(" not in answer
            assert status in (0, 200, 301, 400, 403, 404, 414, 431), (path[:80], status)
            if status == 301:  # to no other site
                location = answer.split(b"ocation: ", 1)[1].split(b"\r\n", 1)[0]
                assert location.startswith(b"/"), location
                assert not location.startswith((b"//", b"/\\")), location
    assert is_well(port)


RANGES = [
    b"bytes=0-0,1-1",
    b"bytes=" + b",".join(b"%d-%d" % (n, n) for n in range(5_000)),
    b"bytes=" + b"0-," * 5_000,
    b"bytes=" + b"," * 50_000,
    b"bytes=999999999999999999999999-",
    b"bytes=-0",
    b"bytes=5-1",
    b"bytes=-999999999999999999999999",
    b"bytes=0-99999999999999999999999999",
    b"bytes=a-b",
    b"bytes=\xff",
    b"lines=1-2",
    b"bytes=\xd9\xa1-",
]


def test_ranges_cost_no_time_and_show_the_photo_alone(port: int, small: Any) -> None:
    with Library.open(small.folder) as library:
        photo = library.photo(1)
    assert photo is not None
    size = os.path.getsize(photo.path)
    for wanted in RANGES:
        began = time.monotonic()
        status, answer = get(port, b"/photo/1", b"Range: " + wanted)
        assert time.monotonic() - began < 5, wanted[:80]
        assert status in (0, 200, 206, 400, 416, 431), (wanted[:80], status)
        assert len(answer) < 3 * size + 200_000, wanted[:80]
    assert is_well(port)


HEADS = [
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 2**20 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: " + b"a=b; " * 10_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n evil.example\r\n\r\n",
    b"GET / HTTP/1.1\nHost: 127.0.0.1\n\n",
    b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # somebody speaks TLS
    b"\x00" * 5_000,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"G" * 200_000,
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"
    b"ZZ\r\nx\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
    b"GET /_stcore/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n",
]


def test_broken_heads_end_the_connection_at_most(port: int) -> None:
    for head in HEADS:
        began = time.monotonic()
        answer = raw(port, head)
        assert time.monotonic() - began < AT_ONCE, head[:80]
        assert b"Traceback" not in answer
    assert is_well(port)


def test_methods_change_nothing(port: int, small: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.photos.rglob("*") if path.is_file()}
    for method in (b"PUT", b"DELETE", b"PATCH", b"TRACE", b"CONNECT", b"PROPFIND", b"X" * 5_000):
        for path in (b"/photo/1", b"/thumb/1", b"/", b"/library", b"/static/index.html"):
            status, answer = get(port, path, b"X-Secret: 12345678", method=method)
            assert status in (0, 400, 404, 405, 501), (method[:20], path, status)
            assert b"12345678" not in answer  # TRACE would send it back
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert is_well(port)


@contextmanager
def websocket(port: int) -> Iterator[tuple[Any, str]]:
    """A session of the app as a browser opens it, and its id, which uploads name."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    message = BackMsg()
    message.rerun_script.query_string = ""
    url = f"ws://127.0.0.1:{port}/_stcore/stream"
    with connect(url, subprotocols=[Subprotocol("streamlit")], max_size=None) as connection:
        connection.send(message.SerializeToString())
        forward = ForwardMsg()
        while not forward.HasField("new_session"):
            received = connection.recv(timeout=AT_ONCE)
            assert isinstance(received, bytes)
            forward.ParseFromString(received)
        yield connection, forward.new_session.initialize.session_id


def upload(port: int, path: str, body: bytes, boundary: str = "b", **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    given = {"Content-Type": f"multipart/form-data; boundary={boundary}", **headers}
    try:
        connection.request("PUT", path, body, given)
        return connection.getresponse().status
    except OSError:
        return 0  # it hung up
    finally:
        connection.close()


def part(name: str, file: str, content: bytes) -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n\r\n'
    return head.encode("utf-8", "surrogateescape") + content + b"\r\n"


def test_uploads_of_any_shape_leave_the_app_as_it_was(port: int, tmp_path: Path) -> None:
    with websocket(port) as (_, session):
        server = next(
            process
            for process in psutil.process_iter()
            if any(of.laddr.port == port for of in connections_of(process))
        )
        before = server.memory_info().rss
        path = f"/_stcore/upload_file/{session}/00000000-0000-0000-0000-000000000000"
        end = b"--b--\r\n"
        thousands = b"".join(part(f"f{n}", f"{n}.jpg", b"x") for n in range(5_000)) + end
        headers = b"--b\r\n" + b"X: y\r\n" * 20_000 + b"\r\nx\r\n" + end
        names = [
            "../../../tmp/pwned.jpg",
            "/etc/pwned",
            "a\\r\\nX: y",
            "%0d%0aX: y",
            "a" * 100_000,
            "\udcff.jpg",
        ]
        bodies = [
            thousands,
            headers,
            *(part("file", name, b"x") + end for name in names),
            part("file", "large.jpg", b"x" * (70 * 2**20)) + end,  # above the limit of 64 MB
            part("file", "cut.jpg", b"x")[:-10],
            b"",
            b"--b",
            b"\x00" * 10_000,
        ]
        for body in bodies:
            began = time.monotonic()
            status = upload(port, path, body)
            assert time.monotonic() - began < 60
            assert status in (0, 204, 400, 403, 413, 422), (body[:80], status)
        for wrong in (
            "/_stcore/upload_file/nobody/x",
            "/_stcore/upload_file/../../x",
            "/_stcore/upload_file",
        ):
            assert upload(port, wrong, part("file", "a.jpg", b"x") + end) in (0, 400, 403, 404, 405), wrong
        assert upload(port, path, part("file", "a.jpg", b"x") + end, Origin="http://evil.example") == 403
        assert not Path("/tmp/pwned.jpg").exists()
        assert server.memory_info().rss - before < 600 * 2**20
        assert is_well(port)


def connections_of(process: psutil.Process) -> list[Any]:
    try:
        return [of for of in process.net_connections("inet") if of.status == psutil.CONN_LISTEN]
    except psutil.Error:
        return []


def test_the_websocket_takes_no_nonsense(port: int) -> None:
    for message in (b"", b"\xff" * 1_000, b"text", os.urandom(100_000)):
        with websocket(port) as (connection, _):
            connection.send(message)
            time.sleep(0.1)
    assert is_well(port)


def test_names_of_files_inject_nothing(tmp_path: Path, small: Any, start_server: StartServer) -> None:
    """A file name with line breaks and markup: in answers' headers, and in what the log holds."""
    photos = tmp_path / "photos"
    photos.mkdir()
    name = 'a\r\nX-Injected: yes\r\n\r\n<script>alert(1)</script>";\u202e.jpg'.replace("/", "")
    shutil.copy(small.photos / "coffee.jpg", photos / name)
    with Library.open(tmp_path / "library", embedder="color_layout") as library:
        library.index([photos])
    server = start_server(tmp_path / "library", "command")
    for path in (b"/photo/1", b"/thumb/1"):
        status, answer = get(server.port, path)
        head = answer.split(b"\r\n\r\n")[0]
        assert status == 200
        assert b"X-Injected" not in head
    assert "\r\nX-Injected" not in server.log.read_text("utf-8", "replace")


def test_many_at_once_are_answered(port: int) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda number: get(port, b"/thumb/%d" % (number % 20))[0], range(500)))
    assert set(answers) <= {200, 404}
    assert is_well(port)


def test_the_apps_settings_show_nothing_of_the_machine(port: int) -> None:
    _, answer = get(port, b"/_stcore/host-config")
    settings = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    assert os.path.expanduser("~") not in json.dumps(settings)
    assert get(port, b"/_stcore/metrics")[0] in (200, 404)
