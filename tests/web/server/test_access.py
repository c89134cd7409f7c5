"""The app opened from elsewhere: beyond this machine, behind a proxy, under a path, with a password."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from starlette.testclient import TestClient

from tests.web.proxy import Proxy, running
from vitmae_search.errors import VitmaeSearchError
from vitmae_search.library.jobs import start as start_job
from vitmae_search.settings import password
from vitmae_search.web.server.launch import Access, launch

PASSWORD = "correct horse"
StartServer = Callable[..., Any]


def ask(
    port: int, path: str, method: str = "GET", body: str = "", *, to: str = "127.0.0.1", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection(to, port, timeout=20)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body or None, named)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def stream(port: int, path: str, **headers: str) -> int:
    """The status of a websocket's handshake; 101 where it opens."""
    return ask(
        port,
        path,
        Connection="Upgrade",
        Upgrade="websocket",
        Sec_WebSocket_Version="13",
        Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
        Sec_WebSocket_Protocol="streamlit",
        **headers,
    )[0]


FORM = {"Content_Type": "application/x-www-form-urlencoded"}


def sign_in(port: int, password: str = PASSWORD, base: str = "", **headers: str) -> tuple[int, str]:
    """The status, and the cookie as a browser would send it back."""
    body = f"password={password.replace(' ', '+')}&to={base}/"
    status, answered, _ = ask(port, f"{base}/sign-in", "POST", body, **FORM, **headers)
    return status, answered.get("set-cookie", "")


def own_address() -> str:
    """An address of this machine that is not the loopback's."""
    for items in psutil.net_if_addrs().values():
        for item in items:
            if item.family == socket.AF_INET and not item.address.startswith("127."):
                return str(item.address)
    pytest.skip("this machine has no other address")


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1"])
def test_beyond_this_machine_it_wants_a_password(address: str, tmp_path: Path) -> None:
    with pytest.raises(VitmaeSearchError, match=r"needs a password.*--password-file.*--token"):
        launch(tmp_path / "library", open_browser=False, access=Access(address))


@pytest.mark.parametrize(
    ("access", "says"),
    [
        (Access("photos.example"), "--address photos.example.*--host-name"),
        (Access("192.0.2.1", token=True), "no such address"),
        (Access(base_path="photos"), "--base-path photos"),
        (Access(base_path="/../x"), "--base-path"),
        (Access(base_path="/a b"), "--base-path"),
        (Access(base_path="/{x}"), "--base-path"),
        (Access(base_path="//evil.example"), "--base-path"),
        (Access(proxy="*"), "--trust-proxy"),
        (Access(proxy="proxy.example"), "--trust-proxy"),
        (Access(password_file=Path("no such file")), "cannot be read"),
        (Access(password_file=Path(os.devnull)), "cannot be read"),
    ],
)
def test_what_is_not_possible_is_said(access: Access, says: str, tmp_path: Path) -> None:
    with pytest.raises(VitmaeSearchError, match=says):
        launch(tmp_path / "library", open_browser=False, access=access)


def test_the_password_comes_from_the_environment_or_from_a_file_of_ones_own(password_file: Path) -> None:
    named = {"VITMAE_SEARCH_PASSWORD_FILE": str(password_file)}
    assert password({}) is None
    assert password(named) == PASSWORD
    assert password({**named, "VITMAE_SEARCH_PASSWORD": "of the environment"}) == "of the environment"
    for mode in (0o640, 0o604, 0o644):
        password_file.chmod(mode)
        with pytest.raises(VitmaeSearchError, match="chmod 600"):
            password(named)
    with pytest.raises(VitmaeSearchError, match="8 characters") as caught:
        password({"VITMAE_SEARCH_PASSWORD": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_a_job_does_not_inherit_the_password(
    tmp_path: Path, password_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITMAE_SEARCH_PASSWORD", PASSWORD)
    monkeypatch.setenv("VITMAE_SEARCH_PASSWORD_FILE", str(password_file))
    _, child = start_job(tmp_path / "library", "index", [str(tmp_path)])
    while not (environment := psutil.Process(child.pid).environ()):
        assert child.poll() is None
        time.sleep(0.01)  # it has none for a moment, as it starts
    child.kill()
    child.wait()
    assert "VITMAE_SEARCH_CACHE" in environment
    assert not [name for name in environment if "PASSWORD" in name]


def test_with_a_password_other_machines_are_answered(
    tmp_path: Path, password_file: Path, start_server: StartServer
) -> None:
    """Of other machines nothing is known here but that they come to another address than the loopback's."""
    address = own_address()
    flags = ["--address", "0.0.0.0", "--password-file", str(password_file), "--host-name", "photos.example"]
    server = start_server(tmp_path / "library", "command", flags=flags)
    port = server.port
    deadline = time.monotonic() + 20
    while f"http://{address}:{port}" not in server.log.read_text():
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.1)
    for path in ("/_stcore/health", "/_stcore/host-config", "/photo/1", "/thumb/1", "/static/x.js"):
        assert ask(port, path, to=address)[0] == 401, path
    assert stream(port, "/_stcore/stream") == 403
    status, cookie = sign_in(port)
    assert status == 303
    for host in (f"{address}:{port}", "photos.example", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert ask(port, "/_stcore/health", to=address, Host=host, Cookie=cookie)[0] == 200, host
    for host in ("evil.example", "localhost.evil.example", f"1.2.3.4.evil.example:{port}", "photos"):
        assert ask(port, "/_stcore/health", to=address, Host=host, Cookie=cookie)[0] == 403, host
    assert stream(port, "/_stcore/stream", Cookie=cookie) == 101
    assert stream(port, "/_stcore/stream", Cookie=cookie, Origin="http://evil.example") == 403
    assert PASSWORD not in server.log.read_text()


def test_streamlit_run_on_all_addresses_answers_others_only_with_a_password(
    tmp_path: Path, start_server: StartServer
) -> None:
    address = own_address()
    flags = ["--server.address=0.0.0.0"]
    open_server = start_server(tmp_path / "library", flags=flags)
    assert ask(open_server.port, "/_stcore/health")[0] == 200
    # The host is one that the guard of names lets through.
    status, _, body = ask(open_server.port, "/", to=address, Host="localhost")
    assert (status, b"--password-file" in body) == (403, True)
    closed = start_server(tmp_path / "library", flags=flags, VITMAE_SEARCH_PASSWORD=PASSWORD)
    assert ask(closed.port, "/", to=address)[0] == 401
    assert sign_in(closed.port)[0] == 303


def test_a_token_is_made_and_printed_once(tmp_path: Path, start_server: StartServer) -> None:
    server = start_server(tmp_path / "library", "command", flags=["--token"])
    deadline = time.monotonic() + 20
    while not (found := re.search(r"/sign-in#([\w-]{30,})", server.log.read_text())):
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.1)
    assert ask(server.port, "/")[0] == 401
    assert sign_in(server.port, found[1])[0] == 303
    assert server.log.read_text().count(found[1]) == 1
    arguments = [p.cmdline() for p in psutil.Process(server.process.pid).children(recursive=True)]
    assert found[1] not in str(arguments)  # which all users of the machine can read


def test_under_a_path_behind_a_proxy(
    tmp_path: Path, small: Any, password_file: Path, start_server: StartServer
) -> None:
    flags = ["--base-path", "/photos/", "--host-name", "photos.example", "--trust-proxy", "127.0.0.1"]
    flags += ["--password-file", str(password_file)]
    server = start_server(small.folder, "command", flags=flags, base="/photos")
    https = {"forwarded_for": "203.0.113.9", "forwarded_proto": "https"}
    for proxy in (Proxy(server.port, **https), Proxy(server.port, host="127.0.0.1", **https)):
        with running(proxy) as port:
            outside = {"Host": "photos.example", "Origin": "https://photos.example"}
            status, cookie = sign_in(port, base="/photos", **outside)
            assert status == 303
            assert "Secure" in cookie
            outside["Cookie"] = cookie
            for path in ("/", "/library", "/photo/1", "/thumb/1", "/_stcore/health", "/favicon.png"):
                assert ask(port, f"/photos{path}", **outside)[0] == 200, path
            for path in ("/", "/library", "/photo/1", "/photosphere/", "/photos/nothing", "/photos/photos"):
                assert ask(port, path, **outside)[0] == 404, path
            assert stream(port, "/photos/_stcore/stream", **outside) == 101
            assert stream(port, "/photos/_stcore/stream", **{**outside, "Cookie": "x"}) == 403
            assert b"/photos/" in ask(port, "/photos/nothing", **outside)[2]


def test_x_forwarded_headers_are_believed_only_if_asked(
    tmp_path: Path, password_file: Path, start_server: StartServer
) -> None:
    server = start_server(tmp_path / "library", "command", flags=["--password-file", str(password_file)])
    assert "Secure" not in sign_in(server.port, X_Forwarded_Proto="https")[1]
    statuses = [
        sign_in(server.port, f"wrong {number}", X_Forwarded_For=f"203.0.113.{number}")[0]
        for number in range(6)
    ]
    assert statuses == [401] * 5 + [429]
    assert sign_in(server.port, X_Forwarded_For="203.0.113.99")[0] == 429


def test_streamlit_asks_no_other_site_for_our_address(monkeypatch: pytest.MonkeyPatch, small: Any) -> None:
    """It does so when an origin and a host differ, as behind a proxy that rewrites the host."""
    from streamlit import net_util

    from vitmae_search.web.server.app import middleware

    def asked() -> None:
        raise AssertionError("asked another site")

    monkeypatch.setattr(net_util, "get_external_ip", asked)
    monkeypatch.setenv("VITMAE_SEARCH_ALLOWED_HOSTS", "photos.example")
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    from streamlit.web.server.server_util import is_url_from_allowed_origins
    from streamlit.web.server.starlette.starlette_websocket import _is_origin_allowed

    def origin(request: Any) -> JSONResponse:
        headers = request.headers
        return JSONResponse(_is_origin_allowed(headers["origin"], headers["host"]))

    served = Starlette(routes=[Route("/", origin)], middleware=middleware())
    headers = {"Host": "127.0.0.1:8501", "Origin": "https://photos.example"}
    assert json.loads(TestClient(served, "http://127.0.0.1:8501").get("/", headers=headers).text) is True
    with pytest.raises(AssertionError, match="another site"):
        is_url_from_allowed_origins("https://photos.example")
