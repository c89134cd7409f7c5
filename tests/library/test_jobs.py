"""Indexing in a child process: its row in the catalogue, cancelling it, and its errors."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import LibraryError
from vitmae_search.library import Library
from vitmae_search.records import JobRecord

WAIT = 60.0


def wait_until(library: Library, key: str, done: Callable[[JobRecord], bool]) -> JobRecord:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        run = library.job(key)
        if run is not None and done(run):
            return run
        time.sleep(0.05)
    raise AssertionError(f"{library.job(key)} after {WAIT} s")


@pytest.fixture
def many(tmp_path: Path, write_photo: Callable[[Path, int], Path]) -> Path:
    for seed in range(30):
        write_photo(tmp_path / "many" / f"{seed}.jpg", seed)
    return tmp_path / "many"


def test_a_child_indexes_and_its_row_says_so(tmp_path: Path, photos: Path) -> None:
    with Library.open(tmp_path / "new") as library:
        key = library.start_job("index", photos, "--embedder", "color_layout")
        run = wait_until(library, key, lambda run: run.state != "running")
        assert run.state == "done"
        assert run.report is not None
        assert run.report["added"] == 12
        assert library.status().photos == 12
        with pytest.raises(LibraryError, match="done"):
            library.cancel_job(key)
        with pytest.raises(LibraryError, match="no such run"):
            library.cancel_job("nonsense")


def test_no_file_in_the_current_folder_is_imported_in_place_of_a_module(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "numpy.py").write_text("raise SystemExit('a stranger ran')", "utf-8")
    monkeypatch.chdir(photos)
    with Library.open(tmp_path / "new") as library:
        key = library.start_job("index", photos, "--embedder", "color_layout")
        assert wait_until(library, key, lambda run: run.state != "running").state == "done"


@pytest.mark.parametrize("database", ["file", "server"])
def test_another_process_can_watch_and_cancel_it(
    tmp_path: Path, many: Path, gate: Path, database: str, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("postgresql") if database == "server" else None
    address = None if server is None else server.address(server.create())
    folder = tmp_path / "new"
    with Library.open(folder, catalog=address) as starter, Library.open(folder, catalog=address) as watcher:
        key = starter.start_job("index", many, "--embedder", "gated", "--batch-size", "1")
        wait_until(watcher, key, lambda run: watcher.status().photos >= 3)
        watcher.cancel_job(key)
        watcher.cancel_job(key)  # once more changes nothing
        asked = watcher.job(key)
        assert asked is not None
        assert (asked.state, asked.cancel_requested_at is None) == ("running", False)
        wait_until_heard(watcher, key)
        gate.touch()
        run = wait_until(watcher, key, lambda run: run.state != "running")
        assert run.state == "cancelled"
        CatalogWriter.open_writer(folder, address, wait=WAIT).close()  # the child is gone when its lock is
        kept = watcher.status().photos
        assert 3 <= kept < 30
        with Library.open(folder, catalog=address, plugin_folders=[gate.parent]) as library:
            assert library.index(many).added == 30 - kept


def test_a_job_of_another_machine_is_cancelled_by_its_row(
    tmp_path: Path, many: Path, gate: Path, bystander: subprocess.Popen[bytes]
) -> None:
    """The process with that number here is somebody else."""
    options = {"embedder": "gated", "batch_size": 1, "plugin_folders": [gate.parent]}
    with Library.open(tmp_path / "new", **options) as there, Library.open(tmp_path / "new") as here:
        with ThreadPoolExecutor() as pool:
            running = pool.submit(there.index, many, run_key="there")
            wait_until(here, "there", lambda run: here.status().photos >= 3)
            say_another_machine(here.folder, bystander.pid)
            here.cancel_job("there")
            wait_until_heard(here, "there")
            gate.touch()
            assert running.result().interrupted
        ended = here.job("there")
        assert ended is not None
        assert (ended.state, ended.host) == ("cancelled", "elsewhere")
    assert bystander.poll() is None


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def say_another_machine(folder: Path, pid: int) -> None:
    with sqlite3.connect(folder / "catalogue.sqlite3", timeout=WAIT) as connection:
        connection.execute("UPDATE runs SET host = 'elsewhere', machine = 'another', pid = ?", (pid,))
    connection.close()


def wait_until_heard(library: Library, key: str) -> None:
    """A job that waits for the gate writes to its row because it heard the request."""
    wait_until(library, key, lambda run: run.heartbeat_at > (run.cancel_requested_at or run.heartbeat_at))


def test_a_killed_child_reads_as_interrupted(tmp_path: Path, many: Path, gate: Path) -> None:
    with Library.open(tmp_path / "new") as library:
        key = library.start_job("index", many, "--embedder", "gated", "--batch-size", "1")
        run = wait_until(library, key, lambda run: library.status().photos >= 3)
        os.kill(run.pid, signal.SIGKILL)
        assert wait_until(library, key, lambda run: run.state != "running").state == "interrupted"


def test_a_child_that_cannot_start_reports_the_reason(tmp_path: Path, photos: Path) -> None:
    with Library.open(tmp_path / "new") as library:
        with pytest.raises(LibraryError, match="not a folder"):
            library.start_job("index", tmp_path / "nowhere")
        key = library.start_job("index", photos, "--embedder", "no-such-plugin")
        failed = wait_until(library, key, lambda run: run.state != "running")
        assert failed.state == "failed"
        assert "no-such-plugin" in (failed.error or "")
        with CatalogWriter.open_writer(tmp_path / "new"), pytest.raises(LibraryError, match=str(os.getpid())):
            library.start_job("index", photos)
