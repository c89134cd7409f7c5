"""A small indexed library, servers started as a person starts them, and Chromium."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vitmae_search.library import Library
from vitmae_search.web.server import session

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "app.py"
CHROMIUM = "/usr/bin/chromium"
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# As Markdown a remote picture, as HTML a script; on disk it is folders, since / cannot be in a name.
HOSTILE = "![x](http:/127.0.0.1:9/p.png)<img src=x onerror=alert(1)>.jpg"


@dataclass(frozen=True)
class Small:
    """A library over `photos`: a few pictures in two crops each, one hostile name, one broken file."""

    folder: Path
    photos: Path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, real_photos: Mapping[str, Path]) -> Small:
    base = tmp_path_factory.mktemp("web")
    photos = base / "photos"
    photos.mkdir()
    for name in ("astronaut", "chelsea", "coffee", "rocket", "china", "flower"):
        with Image.open(real_photos[name]) as picture:
            image = picture.convert("RGB")
        image.thumbnail((320, 320))
        image.save(photos / f"{name}.jpg", quality=90)
        width, height = image.size
        image.crop((width // 12, height // 12, width, height)).save(photos / f"{name}-crop.jpg", quality=90)
    hostile = photos / HOSTILE
    hostile.parent.mkdir(parents=True)
    with Image.open(photos / "coffee.jpg") as picture:
        picture.rotate(4).save(hostile)
        picture.rotate(8).save(photos / "tiff.tif")
    (photos / "broken <b>.jpg").write_bytes((photos / "rocket.jpg").read_bytes()[:900])
    folder = base / "library"
    with Library.open(folder, embedder="color_layout") as library:
        library.index([photos])
    return Small(folder, photos)


@pytest.fixture
def opened(small: Small, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    """The small library as the app's own."""
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(small.folder))
    yield session.library()
    session.close_libraries()


@pytest.fixture
def opened_copy(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    """A copy of the small library as the app's own, for tests that write to it."""
    shutil.copytree(small.folder, tmp_path / "library")
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    yield session.library()
    session.close_libraries()


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A library that is not there yet, as the app's own."""
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "nothing-yet"))
    yield tmp_path / "nothing-yet"
    session.close_libraries()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Server:
    """A running app: `process` is what the person started."""

    url: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path


StartServer = Callable[..., Server]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start the app, `how` = "streamlit" or "command", from a folder that has nothing to do with it.

    `flags` follow the command, and `base` is the path that the app was told to be under.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start(
        library: Path,
        how: str = "streamlit",
        *,
        app: Path = APP,
        port: int | None = None,
        flags: Sequence[str] = (),
        base: str = "",
        **environ: str,
    ) -> Server:
        port = port or free_port()
        log = tmp_path / f"server-{port}.log"
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "HOME": str(tmp_path),
            "VITMAE_SEARCH_LIBRARY": str(library),
            **environ,
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*_command(how, library, port, app), *flags],
                cwd=tmp_path,
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        server = Server(f"http://127.0.0.1:{port}{base}", port, process, log)
        _wait_until_it_answers(server)
        return server

    yield start
    for process in started:
        _stop(process)


def _command(how: str, library: Path, port: int, app: Path) -> list[str]:
    if how == "streamlit":
        flags = [f"--server.port={port}", "--server.headless=true"]
        return [sys.executable, "-m", "streamlit", "run", str(app), *flags]
    flags = ["--library", str(library), "--port", str(port), "--no-browser"]
    return [sys.executable, "-m", "vitmae_search", "app", *flags]


def _wait_until_it_answers(server: Server) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log.read_text()
        try:
            urllib.request.urlopen(f"{server.url}/_stcore/health", timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 401:  # it asks for a password
                return
        except OSError:
            pass
        time.sleep(0.1)
    pytest.fail(f"the app did not answer:\n{server.log.read_text()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    """A real browser. Skipped where there is none."""
    if not shutil.which(CHROMIUM):
        pytest.skip("Chromium is not installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    sync_api.expect.set_options(timeout=60_000)  # of every expectation: a busy machine takes long
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A page of a window."""
    opened = chromium.new_page(viewport={"width": 1200, "height": 800})
    opened.set_default_timeout(30_000)
    yield opened
    opened.close()


@pytest.fixture
def phone(chromium: Any) -> Iterator[Any]:
    """A page of a phone, which is touched."""
    context = chromium.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, color_scheme="dark"
    )
    opened = context.new_page()
    opened.set_default_timeout(30_000)
    yield opened
    context.close()


@dataclass(frozen=True)
class Gated:
    """A library whose model waits for `gate` to exist; two folders, of which one is not indexed yet."""

    library: Path
    plugins: Path
    gate: Path
    waiting: Path


@pytest.fixture
def gated(tmp_path: Path, write_photo: Callable[[Path, int], Path]) -> Gated:
    plugins, waiting = tmp_path / "plugins", tmp_path / "waiting"
    plugins.mkdir()
    shutil.copy(Path(__file__).parents[1] / "helpers" / "gated_plugin.py", plugins / "gated.py")
    gate = plugins / "gate"
    gate.touch()
    write_photo(tmp_path / "first" / "first.jpg", 999)
    with Library.open(tmp_path / "library", embedder="gated", plugin_folders=[plugins]) as library:
        library.index([tmp_path / "first"])
    gate.unlink()
    for seed in range(80):
        write_photo(waiting / f"{seed}.jpg", seed)
    return Gated(tmp_path / "library", plugins, gate, waiting)
