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
    """Serve a library on this machine until Ctrl-C. The address is printed once the app answers.

    Args:
        library: The library's folder.
        port: The port. None is the first free one from 8501.
        open_browser: Open the address in the default browser.

    Returns:
        The exit status.

    Raises:
        VitmaeSearchError: The port is taken.
    """
    chosen = _free_port() if port is None else _checked_port(port)
    url = f"http://{ADDRESS}:{chosen}"
    child = subprocess.Popen(_command(chosen), env=environment_for(library))  # noqa: S603
    with _ended_on_signal(child):
        if not _wait_until_ready(child, url):
            return child.wait() or 1
        click.echo(f"vitmae-search is at {url}  (Ctrl-C stops it)")
        if open_browser:
            webbrowser.open(url)
        return child.wait()
    return 0


def _command(port: int) -> list[str]:
    """The command line. Its flags win over the environment and every config.toml: it listens here only."""
    options = {
        "server.address": ADDRESS,
        "server.port": str(port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "logger.hideWelcomeMessage": "true",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    # -P keeps the current folder off the import path: a file there could take the place of a module.
    return [sys.executable, "-P", "-m", "streamlit", "run", str(bundled("app.py")), *flags]


def _checked_port(port: int) -> int:
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
        # As the server does: a port in TIME_WAIT from the last run counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
        return True


def _wait_until_ready(child: subprocess.Popen[bytes], url: str) -> bool:
    """Wait until the app answers; False if it ended instead."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _START_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), opener.open(f"{url}/_stcore/health", timeout=5):
            return True
        time.sleep(0.1)
    return False


@contextlib.contextmanager
def _ended_on_signal(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Within the block, Ctrl-C and SIGTERM end the child and then the block, without an error."""

    def terminate(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    # SIGINT too: it is ignored in a process that a script starts in the background.
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
