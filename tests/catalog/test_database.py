"""One read-write connection that alone checkpoints; readers that never change the file."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import NullPool, QueuePool, create_engine

from vitmae_search.catalog import Catalog, CatalogWriter, sqlite, writable_sqlite
from vitmae_search.errors import LibraryBusy, StorageError

pytestmark = pytest.mark.sqlite_only("is about the connections to SQLite's file")

READ = """
import sys
from pathlib import Path
from vitmae_search.catalog import Catalog
with Catalog.open(Path(sys.argv[1])) as catalog:
    print(catalog.count_photos(), len(catalog.searchable_ids(1)), flush=True)
"""


def file_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "catalogue.sqlite3").read_bytes()).hexdigest()


def journal(writer: CatalogWriter) -> str:
    with sqlite.autocommit_connection(writer._database._write_engine) as raw:
        return raw.exec_driver_sql("PRAGMA journal_mode").scalar_one()


def read_in_child(folder: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", READ, os.fspath(folder)],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_readers_never_change_the_file(folder, writer, space, make):
    """They open, read and close while the log holds changes: neither file nor log move."""
    assert journal(writer) == "wal"
    writer.record_batch(space, [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(50)])
    log = folder / "catalogue.sqlite3-wal"
    before, frames = file_hash(folder), log.read_bytes()
    assert len(frames) > 10_000
    for _ in range(3):
        with Catalog.open(folder) as reader:
            assert reader.count_photos() == 50
            assert reader.check() == []
    assert read_in_child(folder).stdout.split() == [b"50", b"50"]
    assert file_hash(folder) == before
    assert log.read_bytes() == frames


def test_a_reader_that_closes_last_does_not_checkpoint_either(folder, make):
    """The writer was killed: its log stays until the next writer."""
    script = """
import os, signal, sys
from pathlib import Path
from vitmae_search.catalog import CatalogWriter
writer = CatalogWriter.open_writer(Path(sys.argv[1]))
writer.add_root("/p", 1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, os.fspath(folder)], env=environment)
    before, log = file_hash(folder), folder / "catalogue.sqlite3-wal"
    size = log.stat().st_size
    assert size > 0
    with Catalog.open(folder) as reader:
        assert [root.path for root in reader.roots()] == ["/p"]
    assert file_hash(folder) == before
    assert log.stat().st_size == size
    CatalogWriter.open_writer(folder).close()
    assert file_hash(folder) != before
    assert not log.exists() or log.stat().st_size == 0


def test_a_reader_cannot_write(folder, writer):
    with (
        Catalog.open(folder) as reader,
        pytest.raises(StorageError, match="cannot be written"),
        reader._database.read_transaction() as raw,
    ):
        raw.exec_driver_sql("DELETE FROM photos")


def test_readers_read_during_a_transaction_and_from_many_threads(folder, writer, space, make):
    """Every reading is of one moment: as many vectors as photos, five more a batch."""
    stop, wrong, readings = threading.Event(), [], []

    def read(reader: Catalog) -> None:
        while not stop.is_set():
            status = reader.status()
            if status.photos % 5 or status.photos != status.contents != status.spaces[0].vectors:
                wrong.append(status)
            readings.append(status.photos)

    with Catalog.open(folder) as reader:
        threads = [threading.Thread(target=read, args=(reader,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for start in range(0, 100, 5):
            writer.record_batch(space, [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(start, start + 5)])
        with writer._transaction() as raw:
            raw.exec_driver_sql("DELETE FROM embeddings")
            assert reader.status().spaces[0].vectors == 100
            raw.exec_driver_sql("ROLLBACK")
            raw.exec_driver_sql("BEGIN")
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(readings) >= 4
    assert writer.check() == []


def test_known_files_may_be_walked_while_batches_are_recorded(writer, space, make):
    writer.record_batch(space, [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(30)])
    seen = []
    for known in writer.known_files("/p", space):
        seen.append(known.stamp.path)
        writer.record_batch(space, [make.item(f"/p/z{len(seen)}.jpg", f"z{len(seen)}")])
    assert len(seen) == 30  # as it was when the walk began
    assert writer.count_photos() == 60


@pytest.mark.parametrize(
    "name", ["a?b#c%20", "name with 'quotes\" & ümläut 📷", "new\nline", "?mode=rw", "%41"]
)
def test_odd_folder_names(tmp_path, make, name):
    folder = tmp_path / name
    with CatalogWriter.open_writer(folder) as writer:
        writer.record_batch(make.space(writer).space_id, [make.item("/p/a.jpg", "cat")])
    assert (folder / "catalogue.sqlite3").stat().st_size > 0
    with Catalog.open(folder) as reader:
        assert reader.count_photos() == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_relative_folder_stays_where_it_was(tmp_path, make, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with CatalogWriter.open_writer(Path("library")) as writer:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        make.space(writer)
        assert len(writer.spaces()) == 1
        assert writer.folder == tmp_path / "library"
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_folder_name_that_is_not_utf8(tmp_path, make):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    with CatalogWriter.open_writer(folder) as writer:
        make.space(writer)
    with Catalog.open(folder) as reader:
        assert len(reader.spaces()) == 1


# Where a write-ahead log cannot work -------------------------------------------------------------------


def test_a_file_system_without_shared_memory_gets_a_rollback_journal(tmp_path):
    """SQLite's own dot-file VFS has none, and answers `PRAGMA journal_mode = WAL` with another mode."""
    file = tmp_path / "x.sqlite3"
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(
            sqlite.sqlite_uri(file, "mode=rwc&vfs=unix-dotfile"), uri=True, isolation_level=None
        ),
        poolclass=NullPool,
    )
    with engine.connect() as raw:
        assert sqlite.set_journal(raw, network=False) == "delete"


def test_a_network_drive_gets_a_rollback_journal(folder, make, monkeypatch):
    monkeypatch.setattr(writable_sqlite, "on_network_drive", lambda folder: True)
    with CatalogWriter.open_writer(folder) as writer:
        assert journal(writer) == "delete"
        space = make.space(writer).space_id
        writer.record_batch(space, [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(30)])
        # Here a reader holds up the writer, so the walk must not stay one while batches are recorded.
        for number, _ in enumerate(writer.known_files("/p", space)):
            writer.record_batch(space, [make.item(f"/p/z{number}.jpg", f"z{number}")])
        with Catalog.open(folder) as reader, writer._transaction() as raw:
            raw.exec_driver_sql("UPDATE spaces SET revision = 99")
            assert reader.space(space).revision == 31
    assert not (folder / "catalogue.sqlite3-wal").exists()


def test_a_library_that_was_carried_to_a_network_drive_changes_its_journal(folder, make, monkeypatch):
    with CatalogWriter.open_writer(folder) as writer:
        assert journal(writer) == "wal"
    monkeypatch.setattr(writable_sqlite, "on_network_drive", lambda folder: True)
    with CatalogWriter.open_writer(folder) as writer:
        assert journal(writer) == "delete"
    monkeypatch.undo()
    with CatalogWriter.open_writer(folder) as writer:
        assert journal(writer) == "wal"


def test_the_innermost_mount_decides():
    mounts = [("/", "ext4"), ("/mnt/nas", "nfs4"), ("/mnt/nas/local", "ext4"), ("/mnt", "tmpfs")]
    assert sqlite.file_system("/mnt/nas/photos", mounts) == "nfs4"
    assert sqlite.file_system("/mnt/nas", mounts) == "nfs4"
    assert sqlite.file_system("/mnt/nassau", mounts) == "tmpfs"
    assert sqlite.file_system("/mnt/nas/local/x", mounts) == "ext4"
    assert sqlite.file_system("/home", mounts) == "ext4"
    assert sqlite.file_system("/home", []) == ""


def test_the_local_disk_is_no_network_drive(tmp_path):
    assert not sqlite.on_network_drive(tmp_path)


# Folders that cannot be written --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ({}, "mode=ro&immutable=1"),
        ({"-wal": b""}, "mode=ro&immutable=1"),
        ({"-wal": b"", "-shm": b""}, "mode=ro"),
        ({"-wal": b"frames"}, "mode=ro"),
        ({"-journal": b"pages"}, "mode=ro"),
    ],
)
def test_immutable_only_where_nothing_is_pending(tmp_path, monkeypatch, beside, expected):
    file = tmp_path / "catalogue.sqlite3"
    for suffix, content in beside.items():
        (tmp_path / (file.name + suffix)).write_bytes(content)
    assert sqlite.reader_options(file) == "mode=ro"
    with monkeypatch.context() as patch:
        patch.setattr(sqlite.os, "access", lambda path, mode: False)
        assert sqlite.reader_options(file) == expected
    full = shutil.disk_usage(tmp_path)._replace(free=4096)
    monkeypatch.setattr(sqlite.shutil, "disk_usage", lambda folder: full)
    assert sqlite.reader_options(file) == expected


def test_immutable_reads_without_a_trace(folder, make, monkeypatch):
    with CatalogWriter.open_writer(folder) as writer:
        writer.record_batch(make.space(writer).space_id, [make.item("/p/a.jpg", "cat")])
    files = sorted(os.listdir(folder))
    monkeypatch.setattr(sqlite.os, "access", lambda path, mode: False)
    with Catalog.open(folder) as reader:
        assert isinstance(reader._database._engine.pool, NullPool)
        assert reader.count_photos() == 1
        assert sorted(os.listdir(folder)) == files
    monkeypatch.undo()
    with Catalog.open(folder) as reader:
        assert isinstance(reader._database._engine.pool, QueuePool)


@pytest.mark.parametrize("left_by_a_reader", [False, True])
def test_a_folder_that_really_cannot_be_written(shared_folder, other_user, make, left_by_a_reader):
    with CatalogWriter.open_writer(shared_folder) as writer:
        writer.record_batch(make.space(writer).space_id, [make.item("/p/a.jpg", "cat")])
    if left_by_a_reader:
        with Catalog.open(shared_folder) as reader:
            assert reader.count_photos() == 1
        assert (shared_folder / "catalogue.sqlite3-shm").exists()
    files = sorted(os.listdir(shared_folder))
    shared_folder.chmod(0o555)
    options = "mode=ro" if left_by_a_reader else "mode=ro&immutable=1"
    assert other_user() == f"{options}: 1 photos, 1 ids, 1 vectors"
    assert sorted(os.listdir(shared_folder)) == files


def test_another_users_changes_are_seen_while_he_writes(shared_folder, other_user, make):
    """The folder is read-only for the reader, and yet a writer is at work: nothing immutable about it."""
    with CatalogWriter.open_writer(shared_folder) as writer:
        space = make.space(writer).space_id
        writer.record_batch(space, [make.item("/p/a.jpg", "cat"), make.item("/p/b.jpg", "dog")])
        shared_folder.chmod(0o555)
        assert other_user() == "mode=ro: 2 photos, 2 ids, 2 vectors"


def test_a_reader_does_not_wait_for_ever(folder, writer, make, monkeypatch):
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    with (
        Catalog.open(folder) as reader,
        sqlite.autocommit_connection(writer._database._write_engine) as raw,
    ):
        raw.exec_driver_sql("PRAGMA locking_mode = EXCLUSIVE")
        raw.exec_driver_sql("PRAGMA journal_mode = DELETE").all()
        raw.exec_driver_sql("BEGIN EXCLUSIVE")
        with pytest.raises(LibraryBusy, match="locked"):
            reader.spaces()
        raw.exec_driver_sql("ROLLBACK")


def test_a_new_library_is_for_its_owner_alone(tmp_path: Path, make) -> None:
    """A folder that was there keeps its mode: a family may share it."""
    for folder, modes in (
        (tmp_path / "new" / "library", (0o700, 0o600)),
        (tmp_path / "shared", (0o755, 0o644)),
    ):
        if folder.name == "shared":
            folder.mkdir(mode=0o755)
            folder.chmod(0o755)
        before = os.umask(0o022)
        try:
            with CatalogWriter.open_writer(folder) as writer:
                writer.record_batch(make.space(writer).space_id, [make.item("/p/a.jpg", "cat")])
                beside = [file for file in folder.iterdir() if file.name.startswith("catalogue")]
                assert len(beside) == 3
                assert {file.stat().st_mode & 0o777 for file in beside} == {modes[1]}
        finally:
            os.umask(before)
        assert folder.stat().st_mode & 0o777 == modes[0]
