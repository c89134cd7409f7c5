"""`vitmae-search app`: the same `streamlit run app.py`, as a child process with its settings spelled out."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from collections.abc import Iterator
from pathlib import Path

import click

from vitmae_search.bundled import bundled
from vitmae_search.errors import VitmaeSearchError
from vitmae_search.settings import environment_for

ADDRESS = "127.0.0.1"
FIRST_PORT = 8501
PORTS_TRIED = 50
_START_SECONDS = 120.0
_STOP_SECONDS = 10.0


def launch(library: Path, port: int | None = None, open_browser: bool = True) -> int:
    """Serve `library` on this machine until Ctrl-C, and return the exit status.

    Without a `port` it is the first free one from 8501. The address goes to stdout once the app answers.
    Raises `VitmaeSearchError` where the port is taken.
    """
    chosen = _free_port() if port is None else _claim(port)
    url = f"http://{ADDRESS}:{chosen}"
    child = subprocess.Popen(_command(chosen), env=environment_for(library))  # noqa: S603
    with _stopping(child):
        if not _answers(child, url):
            return child.wait() or 1
        click.echo(f"vitmae-search is at {url}  (Ctrl-C stops it)")
        if open_browser:
            webbrowser.open(url)
        return child.wait()
    return 0


def _command(port: int) -> list[str]:
    """Flags win over the environment and every config.toml, so nothing else makes it listen elsewhere."""
    options = {
        "server.address": ADDRESS,
        "server.port": str(port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "logger.hideWelcomeMessage": "true",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    # -P: nothing in the folder that the person happens to be in stands in for a module.
    return [sys.executable, "-P", "-m", "streamlit", "run", str(bundled("app.py")), *flags]


def _claim(port: int) -> int:
    if not _is_free(port):
        raise VitmaeSearchError(f"port {port} is taken by another program; choose another with --port")
    return port


def _free_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        if _is_free(port):
            return port
    raise VitmaeSearchError(
        f"ports {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1} are all taken; choose another with --port"
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does, so that a port which only lingers from the last run counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
        return True


def _answers(child: subprocess.Popen[bytes], url: str) -> bool:
    """Wait until the app answers; False where it ended instead."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _START_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), opener.open(f"{url}/_stcore/health", timeout=5):
            return True
        time.sleep(0.1)
    return False


@contextlib.contextmanager
def _stopping(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ctrl-C or a termination ends the child too, and is a normal way to stop."""

    def terminate(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    # SIGINT too: a process started in the background of a script has it ignored.
    before = {number: signal.signal(number, terminate) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        click.echo("\nStopped.", err=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    # Ctrl-C in a terminal reaches the child as well; a second signal does no harm.
    child.terminate()
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
