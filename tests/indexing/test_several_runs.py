"""Several runs at once on one catalogue that is on a PostgreSQL server: they divide the files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copytree

import pytest

from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import StorageError
from vitmae_search.indexing import IndexTarget, claims, index_folders

PHOTOS = 40
TABLES = ("leases", "claims")

_KILLED = """
import os, signal, sys
from pathlib import Path
from shutil import copytree
from tests.indexing.conftest import Bench
from vitmae_search.indexing import claims
claims.LEASE_SECONDS, claims._BLOCK_FILES = 1.5, 8
bench = Bench(Path(sys.argv[1]))
bench.address = sys.argv[2]
rows = []
def before_row(row):
    rows.append(row)
    if len(rows) > 5:
        os.kill(os.getpid(), signal.SIGKILL)
bench.plugin.before_row = before_row
bench.index()
"""


@pytest.fixture
def bench(bench, postgresql, monkeypatch):
    monkeypatch.setattr(claims, "_BLOCK_FILES", 4)
    database = postgresql.create()
    bench.address = postgresql.address(database)
    bench.claimed = lambda: sum(
        postgresql.run(f"SELECT count(*) FROM {name}", database)[0][0] for name in TABLES
    )
    yield bench
    postgresql.drop(database)


@pytest.fixture
def run(bench):
    """Index with a library folder of its own, and call a function between the plan and the reading."""

    def index(name, planned, *folders):
        with CatalogWriter.open_writer(bench.library.with_name(name), bench.address) as catalog:
            target = bench.open_space(catalog)

            def open_embedder():
                planned()
                return target.open_embedder()

            waiting = IndexTarget(open_embedder, target.features, target.searched)
            paths = [os.fspath(folder) for folder in folders]
            return index_folders(catalog, paths, open_target=lambda: waiting, batch_size=4, workers=1)

    return index


def test_each_file_is_read_by_one_run_and_the_catalogue_is_that_of_one(bench, fill, run):
    paths = fill(PHOTOS)
    paths[7].write_bytes(paths[7].read_bytes()[:200])
    both_planned, looked_at = threading.Barrier(2), []

    def before_row(row):
        looked_at.append(row.tobytes())
        time.sleep(0.01)

    bench.plugin.before_row = before_row
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda name: run(name, both_planned.wait, bench.photos), ("one", "other"))
    bench.plugin.before_row = lambda row: None
    assert one.added > 0
    assert other.added > 0
    assert one.added + other.added == PHOTOS - 1
    for report in (one, other):
        assert (report.found, report.failed, report.interrupted) == (PHOTOS, 1, False)
    assert len(looked_at) == len(set(looked_at)) == PHOTOS - 1
    assert bench.claimed() == 0
    assert bench.index().unchanged == PHOTOS - 1
    bench.assert_mirrors_disk()


def test_rows_that_another_run_moved_meanwhile_are_neither_moved_nor_marked_as_missing(bench, fill, run):
    old, copies, moved = (bench.photos / name for name in ("old", "copies", "moved"))
    fill(8, folder=old)
    bench.index()
    copytree(old, copies)
    for path in list(old.iterdir())[:5]:  # and three are gone from there
        moved.mkdir(exist_ok=True)
        path.rename(moved / path.name)
    for path in old.iterdir():
        path.unlink()
    report = run("one", lambda: run("other", lambda: None, old, copies), bench.photos)
    assert (report.unchanged, report.missing) == (8, 0)
    assert bench.missing() == set()
    bench.assert_mirrors_disk()


def test_a_run_beside_one_that_is_killed_reads_its_files_when_its_lease_is_over(bench, fill):
    fill(PHOTOS)
    command = [sys.executable, "-c", _KILLED, os.fspath(bench.photos.parent), bench.address]
    bench.catalog().close()
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True
    ) as killed:
        while not bench.claimed():
            assert killed.poll() is None, killed.stderr.read()
            time.sleep(0.05)
        phases = []
        report = bench.index(on_progress=lambda progress: phases.append(progress.phase))
    assert killed.returncode == -signal.SIGKILL
    assert list(dict.fromkeys(phases)) == ["scanning", "indexing", "waiting", "finishing", "done"]
    assert 0 < report.added <= PHOTOS
    assert report.added + report.unchanged == PHOTOS
    assert bench.claimed() == 0
    assert bench.index().unchanged == PHOTOS
    bench.assert_mirrors_disk()


def test_a_server_that_is_killed_in_mid_run_loses_nothing_acknowledged(bench, fill, postgresql, monkeypatch):
    monkeypatch.setattr(claims, "LEASE_SECONDS", 0.5)
    postgresql.run("CHECKPOINT")  # what other tests have there
    database = bench.address.rpartition("/")[2]
    postgresql.run(f"ALTER DATABASE {database} SET synchronous_commit = on")
    fill(PHOTOS)
    rows, acknowledged, record_batch = [], set(), CatalogWriter.record_batch

    def before_row(row):
        rows.append(row)
        if len(rows) == PHOTOS // 2:
            postgresql.kill()

    def recording(catalog, space_id, batch, *rest):
        refused = record_batch(catalog, space_id, batch, *rest)
        acknowledged.update(item.stamp.path for item in batch)
        return refused

    bench.plugin.before_row = before_row
    monkeypatch.setattr(CatalogWriter, "record_batch", recording)
    with pytest.raises(StorageError, match="try the same again"):
        bench.index()
    monkeypatch.undo()
    postgresql.start()
    with bench.catalog() as catalog:
        recorded = {photo.path for photo in catalog.photos()}
    assert acknowledged
    assert acknowledged <= recorded < set(map(os.fspath, bench.photos.iterdir()))
    report = bench.index()
    assert (report.added, report.unchanged) == (PHOTOS - len(recorded), len(recorded))
    bench.assert_mirrors_disk()
