"""A writer that is killed in the middle of a change locks nobody out, whoever comes next."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from vitmae_search.catalog import Catalog, CatalogWriter, recovery
from vitmae_search.catalog.sqlite import UnfinishedChange
from vitmae_search.catalog.writer_lock import WriterLock
from vitmae_search.errors import LibraryEmpty

pytestmark = pytest.mark.sqlite_only("is about SQLite's rollback journal")

# A cache of few pages is written to the file before the commit, so the journal is hot when the kill comes.
KILLED_WRITER = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE photos SET missing = 1")
connection.execute("CREATE TABLE half (a)")
for _ in range(50):
    connection.execute("INSERT INTO half VALUES (randomblob(9000))")
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_in_a_change(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WRITER, os.fspath(folder / "catalogue.sqlite3")], check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert (folder / "catalogue.sqlite3-journal").stat().st_size > 0


@pytest.fixture
def killed(folder: Path, make) -> Path:
    """A library with two photos, whose writer was killed while it called them missing."""
    with CatalogWriter.open_writer(folder) as writer:
        space = make.space(writer).space_id
        writer.record_batch(space, [make.item("/p/a.jpg", "cat"), make.item("/p/b.jpg", "dog")])
    kill_in_a_change(folder)
    return folder


def reads(folder: Path) -> None:
    with Catalog.open(folder) as reader:
        assert reader.count_photos() == 2


def writes(folder: Path) -> None:
    with CatalogWriter.open_writer(folder) as writer:
        assert writer.count_photos() == 2


def checks(folder: Path) -> None:
    with Catalog.open(folder) as reader:
        assert reader.check() == []


@pytest.mark.parametrize("first", [reads, writes, checks])
def test_whoever_comes_next_finds_the_state_before(killed: Path, first: Callable[[Path], None]) -> None:
    first(killed)
    assert not (killed / "catalogue.sqlite3-journal").exists()
    reads(killed)
    assert not (killed / "writer.pid").exists()


def test_an_open_reader_goes_on(killed: Path) -> None:
    """Its pooled connections were opened before, and what it remembers of the file is older."""
    with Catalog.open(killed) as reader:
        assert reader.count_photos() == 2
        assert [root.photos for root in reader.roots()] == []
        for _ in range(2):
            kill_in_a_change(killed)
            assert reader.count_photos() == 2
            assert len(reader.photos()) == 2


def test_a_writer_that_is_about_to_open_the_file_is_waited_for(killed: Path, monkeypatch) -> None:
    monkeypatch.setattr(recovery, "_WAIT_SECONDS", 0.1)
    lock = WriterLock(killed)
    lock.acquire(0)
    with pytest.raises(UnfinishedChange, match="stopped in the middle of a change"):
        Catalog.open(killed)
    lock.release()
    reads(killed)


def test_a_folder_that_cannot_be_written_is_named(killed: Path, shared_folder: Path, other_user) -> None:
    for file in killed.iterdir():
        shutil.copyfile(file, shared_folder / file.name)
    shared_folder.chmod(0o555)
    answer = other_user()
    assert answer.startswith("UnfinishedChange(")
    assert "must be undone before the library can be read" in answer
    assert "cannot be written: Permission denied" in answer
    shared_folder.chmod(0o755)
    reads(shared_folder)


def test_a_journal_without_a_library_is_an_empty_library(folder: Path) -> None:
    """Killed in the first transaction of all: there is nothing to go back to but an empty file."""
    CatalogWriter.open_writer(folder).close()
    file = folder / "catalogue.sqlite3"
    for left in folder.iterdir():
        left.unlink()
    script = KILLED_WRITER.replace('connection.execute("UPDATE photos SET missing = 1")\n', "")
    subprocess.run([sys.executable, "-c", script, os.fspath(file)], check=False)
    with pytest.raises(LibraryEmpty):
        Catalog.open(folder)
    CatalogWriter.open_writer(folder).close()
    with Catalog.open(folder) as reader:
        assert reader.count_photos() == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte, which can really be full."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", os.fspath(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a file system")
    yield place
    subprocess.run(["umount", "-l", os.fspath(place)], check=True)


def fill(folder: Path) -> None:
    with suppress(OSError), open(folder / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_copy_on_a_full_disk_can_be_read(folder: Path, small_disk: Path, make) -> None:
    """Without the `-shm` file, for which there is no room."""
    with CatalogWriter.open_writer(folder) as writer:
        space = make.space(writer).space_id
        writer.record_batch(space, [make.item("/p/a.jpg", "cat"), make.item("/p/b.jpg", "dog")])
    shutil.copy(folder / "catalogue.sqlite3", small_disk)
    fill(small_disk)
    reads(small_disk)
    checks(small_disk)
    (small_disk / "filler").unlink()
    writes(small_disk)
