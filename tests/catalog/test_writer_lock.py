"""One writer at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import LibraryBusy, StorageError

pytestmark = pytest.mark.sqlite_only("PostgreSQL has many writers")

CHILD = """
import sys
from pathlib import Path
from vitmae_search.catalog import CatalogWriter

with CatalogWriter.open_writer(Path(sys.argv[1])):
    print("open", flush=True)
    sys.stdin.read()
"""


def child_writer(folder):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, os.fspath(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout.readline() == b"open\n"
    return child


def end(child):
    child.stdin.close()
    child.stdout.close()
    child.wait()


def test_a_second_writer_is_told_who_holds_the_library(folder):
    child = child_writer(folder)
    with pytest.raises(LibraryBusy, match=f"process {child.pid}"):
        CatalogWriter.open_writer(folder, wait=0.1)
    end(child)
    CatalogWriter.open_writer(folder, wait=0).close()


def test_a_killed_writer_frees_the_lock_at_once(folder):
    child = child_writer(folder)
    child.kill()
    end(child)
    assert (folder / "writer.pid").exists()  # it had no time to tidy up
    CatalogWriter.open_writer(folder, wait=0).close()
    assert not (folder / "writer.pid").exists()


def test_it_holds_within_one_process_too(folder, writer):
    with pytest.raises(LibraryBusy, match=f"process {os.getpid()}"):
        CatalogWriter.open_writer(folder, wait=0.05)


def test_waiting_gets_the_lock_when_the_other_is_done(folder):
    first = CatalogWriter.open_writer(folder)
    timer = threading.Timer(0.2, first.close)  # also: closed by another thread than opened it
    timer.start()
    CatalogWriter.open_writer(folder, wait=30).close()
    timer.join()


def test_a_failed_opening_gives_the_lock_back(folder):
    folder.mkdir()
    (folder / "catalogue.sqlite3").mkdir()
    for _ in range(2):
        with pytest.raises(StorageError, match="cannot be read or written"):
            CatalogWriter.open_writer(folder, wait=0)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        CatalogWriter.open_writer(tmp_path / "file" / "library")
