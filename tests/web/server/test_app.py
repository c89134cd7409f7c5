"""A real server, started both ways: its addresses, whom it answers, and how it ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.web.conftest import free_port
from vitmae_search.errors import VitmaeSearchError
from vitmae_search.web.server.frontend import STATIC
from vitmae_search.web.server.launch import launch

WAYS = ["streamlit", "command"]
StartServer = Callable[..., Any]


def status(port: int, path: str = "/", *, host: str | None = None, **headers: str) -> int:
    """The status of a GET; `host` overrides the header."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{port}")
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


def websocket_status(port: int, *, host: str | None = None, **headers: str) -> int:
    """101 where the websocket opens."""
    return status(
        port,
        "/_stcore/stream",
        host=host,
        Connection="Upgrade",
        Upgrade="websocket",
        Sec_WebSocket_Version="13",
        Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
        Sec_WebSocket_Protocol="streamlit",
        **headers,
    )


def listening(process: psutil.Process) -> set[str]:
    """The addresses that a process and its children listen on."""
    family = [process, *process.children(recursive=True)]
    return {c.laddr.ip for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize("how", WAYS)
def test_it_listens_and_answers_on_this_machine_only(
    how: str, tmp_path: Path, start_server: StartServer
) -> None:
    server = start_server(tmp_path / "library", how)
    port, own = server.port, f"http://127.0.0.1:{server.port}"
    assert listening(psutil.Process(server.process.pid)) == {"127.0.0.1"}
    for asks, good in ((status, 200), (websocket_status, 101)):
        assert asks(port) == good
        assert asks(port, Origin=own) == good
        assert asks(port, host=f"localhost:{port}") == good
        assert asks(port, host=f"evil.example:{port}") == 403
        assert asks(port, host=f"evil.example:{port}", Origin=f"http://evil.example:{port}") == 403
        assert asks(port, Origin="http://evil.example") == 403
    assert status(port, "/thumb/1", host="evil.example") == 403
    assert status(port, "/thumb/1") == 404
    script = next((STATIC / "static" / "js").glob("index.*.js")).name
    assert status(port, f"/static/js/{script}") == 200
    assert status(port, f"/static/js/{script}", host="evil.example") == 403
    assert not (tmp_path / "library").exists()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_it_is_and_ends_cleanly(
    sent: signal.Signals, tmp_path: Path, start_server: StartServer
) -> None:
    server = start_server(tmp_path / "library", "command")
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert children
    # The child answers a moment before the command has said so.
    while server.url not in server.log.read_text():
        assert server.process.poll() is None
    server.process.send_signal(sent)
    assert server.process.wait(30) == 0
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert gone
    assert not alive
    assert "Traceback" not in server.log.read_text()


def test_another_name_is_answered_once_it_is_listed(tmp_path: Path, start_server: StartServer) -> None:
    server = start_server(tmp_path / "library", VITMAE_SEARCH_ALLOWED_HOSTS="photos.example")
    assert status(server.port, host="photos.example") == 200
    assert websocket_status(server.port, host="photos.example", Origin="http://photos.example") == 101
    assert status(server.port, host="other.example") == 403


def test_a_port_that_is_taken_is_an_error_with_advice(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(VitmaeSearchError, match="--port"):
            launch(tmp_path / "library", taken.getsockname()[1], open_browser=False)


@pytest.mark.parametrize("display", [True, False])
def test_a_window_is_opened_where_there_is_a_display(
    display: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`www-browser` is what Python starts in a terminal without a display."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    opened, programs = tmp_path / "opened", tmp_path / "programs"
    programs.mkdir()
    for program in ("www-browser", "own-browser"):
        script = programs / program
        script.write_text(f'#!/bin/sh\necho "$@" >> {opened}\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    if display:
        monkeypatch.setenv("BROWSER", "own-browser")
    port = free_port()
    command = [sys.executable, "-m", "vitmae_search", "app", "--library", str(tmp_path / "library")]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 90
        while f"http://127.0.0.1:{port}" not in log.read_text() or (display and not opened.exists()):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        time.sleep(1)
    finally:
        process.terminate()
        process.wait(30)
    assert opened.exists() == display
    assert not display or opened.read_text() == f"http://127.0.0.1:{port}\n"
