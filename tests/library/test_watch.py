"""`watch`: what comes, changes and goes in a folder is in the library seconds later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import LibraryError
from vitmae_search.library import Library
from vitmae_search.records import IndexReport, SearchFilter

ROOT = Path(__file__).resolve().parents[2]
WAIT = 60


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.05)


def test_photos_come_change_move_and_go(
    library: Library, photos: Path, write_photo: Callable[[Path, int], Path]
) -> None:
    reports: list[IndexReport] = []
    stop = threading.Event()
    watching = threading.Thread(
        target=lambda: library.watch(photos, on_report=reports.append, cancelled=stop.is_set)
    )
    watching.start()
    try:
        wait_until(lambda: len(reports) == 1)
        assert reports[0].unchanged == 12
        write_photo(photos / "new" / "100.jpg", 100)
        wait_until(lambda: library.count_photos(SearchFilter(under=str(photos / "new"))) == 1)
        assert library.search(photos / "new" / "100.jpg", k=1).known
        with CatalogWriter.open_writer(library.folder):  # another process writes meanwhile
            (photos / "new" / "100.jpg").rename(photos / "moved.jpg")
            time.sleep(2)
        wait_until(lambda: sum(report.moved for report in reports) == 1)
        (photos / "moved.jpg").unlink()
        wait_until(lambda: sum(report.missing for report in reports) == 1)
        runs = len(reports)
        write_photo(photos / ".hidden" / "1.jpg", 101)
        time.sleep(3)
        assert len(reports) == runs
    finally:
        stop.set()
        watching.join(WAIT)
    assert not watching.is_alive()


def test_the_command_ends_with_a_report(
    photos: Path, tmp_path: Path, write_photo: Callable[[Path, int], Path]
) -> None:
    words = ["index", str(photos), "--embedder", "color_layout", "--library", str(tmp_path / "watched")]
    process = subprocess.Popen(
        [sys.executable, "-m", "vitmae_search", *words, "--watch", "--json"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with Library.open(tmp_path / "watched") as library:
        wait_until(lambda: library.count_photos() == 12)
        write_photo(photos / "later.jpg", 100)
        wait_until(lambda: library.count_photos() == 13)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 0
    done = json.loads(out)
    assert (done["runs"] >= 2, done["added"], done["last"]["found"]) == (True, 13, 13)


def test_what_cannot_be_watched_is_said(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LibraryError, match="is not a folder"):
        library.watch(photos / "none", on_report=print, cancelled=lambda: True)
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(LibraryError, match=r"pip install 'vitmae-search\[watch\]'"):
        library.watch(photos, on_report=print, cancelled=lambda: True)
