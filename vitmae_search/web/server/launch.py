"""`vitmae-search app`: the same `streamlit run app.py`, as a child process with its settings spelled out."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from vitmae_search.bundled import bundled
from vitmae_search.errors import VitmaeSearchError
from vitmae_search.settings import (
    ALLOWED_HOSTS,
    PASSWORD,
    PASSWORD_FILE,
    can_open_browser,
    environment_for,
    password,
)
from vitmae_search.web.server.access_guard import SIGN_IN

LOOPBACK = "127.0.0.1"
FIRST_PORT = 8501
PORTS_TRIED = 50
_START_SECONDS = 120.0
_STOP_SECONDS = 10.0
_BASE_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")

# uvicorn believes the X-Forwarded headers of the addresses that this variable lists.
_TRUSTED_PROXIES = "FORWARDED_ALLOW_IPS"


@dataclass(frozen=True)
class Access:
    """From where the app can be opened, and what it asks for.

    Attributes:
        address: The IP address of this machine to listen on; 0.0.0.0 and :: are all.
        base_path: What the app's addresses begin with, "/photos"; "" is nothing.
        host_names: Names under which it may be opened, beside this machine's own.
        password_file: A file with the password; None leaves it to the environment.
        token: Whether to make a password where there is none, and print a link with it.
        proxy: The IP address of a proxy whose X-Forwarded headers are believed; None believes nobody's.
    """

    address: str = LOOPBACK
    base_path: str = ""
    host_names: tuple[str, ...] = ()
    password_file: Path | None = None
    token: bool = False
    proxy: str | None = None


def launch(
    library: Path,
    port: int | None = None,
    open_browser: bool = True,
    access: Access | None = None,
    others: Sequence[Path] = (),
) -> int:
    """Serve a library until Ctrl-C. The address is printed once the app answers.

    Args:
        library: The library's folder.
        port: The port. None is the first free one from 8501.
        open_browser: Open the address in the default browser.
        access: From where it can be opened; None is this machine alone.
        others: Further libraries to choose from.

    Returns:
        The exit status.

    Raises:
        VitmaeSearchError: The port is taken, the access is not possible, or not allowed without a password.
    """
    access = access or Access()
    address, base_path = _checked_address(access.address), _checked_base_path(access.base_path)
    environment = _environment(environment_for(library, *others), access)
    token = _make_token(access, environment)
    if password(environment) is None and not _is_loopback(address):
        raise VitmaeSearchError(
            f"others could open the app at {access.address}, so it needs a password: name a file that holds "
            f"one with --password-file, set {PASSWORD}, or let one be made with --token"
        )
    chosen = _free_port(address) if port is None else _checked_port(address, port)
    urls = [f"http://{_in_url(of)}:{chosen}{base_path}" for of in _reachable_at(address)]
    child = subprocess.Popen(_command(address, chosen, base_path), env=environment)  # noqa: S603
    with _ended_on_signal(child):
        if not _wait_until_ready(child, urls[0]):
            return child.wait() or 1
        for url in urls:
            link = f"{url}{SIGN_IN}#{token}" if token else url
            click.echo(f"vitmae-search is at {link}  (Ctrl-C stops it)")
        if open_browser and can_open_browser():
            webbrowser.open(urls[0])  # without the token: other users can read a browser's arguments
        return child.wait()
    return 0


def _environment(base: dict[str, str], access: Access) -> dict[str, str]:
    environment = {**base, _TRUSTED_PROXIES: _checked_proxy(access.proxy)}
    if access.password_file is not None:
        environment.pop(PASSWORD, None)
        environment[PASSWORD_FILE] = os.fspath(access.password_file.absolute())
    names = [environment.get(ALLOWED_HOSTS, ""), *access.host_names]
    environment[ALLOWED_HOSTS] = ",".join(name for name in names if name)
    return environment


def _make_token(access: Access, environment: dict[str, str]) -> str | None:
    """Where one is asked for and there is no password: a new one, which is the child's password too."""
    if not access.token or password(environment) is not None:
        return None
    token = environment[PASSWORD] = secrets.token_urlsafe(24)
    return token


def _command(address: str, port: int, base_path: str) -> list[str]:
    """The command line. Its flags win over the environment and every config.toml: it listens here only."""
    options = {
        "server.address": address,
        "server.port": str(port),
        "server.baseUrlPath": base_path,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "logger.hideWelcomeMessage": "true",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    # -P keeps the current folder off the import path: a file there could take the place of a module.
    return [sys.executable, "-P", "-m", "streamlit", "run", str(bundled("app.py")), *flags]


def _checked_address(address: str) -> str:
    if address == "localhost":
        return LOOPBACK
    try:
        return str(ipaddress.ip_address(address.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise VitmaeSearchError(
            f"--address {address}: must be an IP address of this machine, or 0.0.0.0 for all of them; "
            "names under which the app may be opened are given with --host-name"
        ) from None


def _checked_base_path(path: str) -> str:
    path = path.rstrip("/")
    if path and not _BASE_PATH.fullmatch(path):
        raise VitmaeSearchError(f"--base-path {path}: must be like /photos, of letters, digits, and . _ ~ -")
    return path


def _checked_proxy(proxy: str | None) -> str:
    if proxy is None:
        return ""
    try:
        return str(ipaddress.ip_address(proxy))
    except ValueError:
        raise VitmaeSearchError(f"--trust-proxy {proxy}: must be the proxy's IP address") from None


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _reachable_at(address: str) -> list[str]:
    """The addresses to open: of "all", this machine's own, the loopback first."""
    if not ipaddress.ip_address(address).is_unspecified:
        return [address]
    import psutil

    found = (
        item.address for of in psutil.net_if_addrs().values() for item in of if item.family == socket.AF_INET
    )
    return [LOOPBACK, *sorted(of for of in found if not _is_loopback(of))]


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _checked_port(address: str, port: int) -> int:
    if not _is_free(address, port):
        raise VitmaeSearchError(f"port {port} is taken by another program; choose another with --port")
    return port


def _free_port(address: str) -> int:
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        if _is_free(address, port):
            return port
    raise VitmaeSearchError(
        f"ports {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1} are all taken; choose another with --port"
    )


def _is_free(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        # As the server does: a port in TIME_WAIT from the last run counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise VitmaeSearchError(f"--address {address}: this machine has no such address") from error
            if error.errno == errno.EACCES:
                raise VitmaeSearchError(
                    f"--port {port}: only the system's own services may use it"
                ) from error
            return False
        return True


def _wait_until_ready(child: subprocess.Popen[bytes], url: str) -> bool:
    """Wait until the app answers; False if it ended instead."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _START_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        try:
            with opener.open(f"{url}/_stcore/health", timeout=5):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return True  # it asks for the password
        except OSError:
            pass
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
