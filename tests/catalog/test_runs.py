"""Long jobs, and those whose process went without a word."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from vitmae_search.catalog import Catalog, CatalogWriter, JobTable
from vitmae_search.errors import LibraryError

CHILD = """
import sys
from pathlib import Path
from vitmae_search.catalog import CatalogWriter

with CatalogWriter.open_writer(Path(sys.argv[1])) as writer:
    writer.start_run("key", "index", {"folder": "/p"})
    writer.update_run("key", {"done": 3, "total": 9})
    print("started", flush=True)
    sys.stdin.read()
"""


def test_a_run_from_start_to_end(address, writer, folder):
    odd = os.fsdecode(b"/caf\xe9")
    started = writer.start_run("k1", "index", {"folders": ["/p", odd], "batch_size": 32})
    assert (started.state, started.pid, started.progress) == ("running", os.getpid(), {})
    assert started.arguments == {"folders": ["/p", odd], "batch_size": 32}
    writer.update_run("k1", {"phase": "indexing", "done": 3, "total": None})
    with Catalog.open(folder, address) as reader:
        assert reader.run("k1").progress == {"phase": "indexing", "done": 3, "total": None}
        assert reader.run("k1").state == "running"
        writer.finish_run("k1", "done", report={"added": 3})
        ended = reader.run("k1")
    assert (ended.state, ended.report, ended.error) == ("done", {"added": 3}, None)
    assert started.started_at <= ended.ended_at
    assert ended.started_at.tzinfo is not None
    writer.start_run("k2", "adapt", {})
    writer.finish_run("k2", "failed", error="The disk is full.")
    assert writer.run("k2").report is None
    assert [run.key for run in writer.runs()] == ["k2", "k1"]
    assert [run.key for run in writer.runs(limit=1)] == ["k2"]
    assert writer.run("k3") is None


def test_keys_are_taken_once_and_must_be_there(writer):
    writer.start_run("k1", "index", {})
    with pytest.raises(LibraryError, match="run k1 already"):
        writer.start_run("k1", "index", {})
    with pytest.raises(LibraryError, match="no run k2"):
        writer.update_run("k2", {})
    with pytest.raises(LibraryError, match="no run k2"):
        writer.finish_run("k2", "done")


@pytest.mark.parametrize("reaped", [True, False])
def test_a_run_whose_process_is_gone_was_interrupted(folder, reaped):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, os.fspath(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout.readline() == b"started\n"
    with Catalog.open(folder) as reader:
        assert reader.run("key").state == "running"
        child.kill()
        if reaped:
            child.wait()
        else:  # a zombie still has its process id
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        run = reader.run("key")
        assert run.state == "interrupted"
        assert run.progress == {"done": 3, "total": 9}
    child.wait()
    child.stdin.close()
    child.stdout.close()


def test_another_process_under_the_same_id_is_not_the_run(writer):
    writer.start_run("k1", "index", {})
    with writer._transaction() as connection:
        connection.exec_driver_sql("UPDATE runs SET process_created = process_created - 60")
    assert writer.run("k1").state == "interrupted"


def test_on_another_machine_the_heartbeat_counts(writer):
    writer.start_run("k1", "index", {})
    with writer._transaction() as connection:
        connection.exec_driver_sql("UPDATE runs SET host = 'elsewhere', machine = 'other', pid = 1")
    assert writer.run("k1").state == "running"
    silent = (datetime.now(UTC) - timedelta(hours=1)).replace(tzinfo=None)
    with writer._transaction() as connection:
        connection.exec_driver_sql(f"UPDATE runs SET heartbeat_at = '{silent.isoformat(' ')}'")
    assert writer.run("k1").state == "interrupted"
    writer.beat("k1")
    assert writer.run("k1").state == "running"


def test_a_machine_of_the_same_name_is_another_one(writer):
    """As copies of a virtual machine, and containers: their processes have numbers of their own."""
    writer.start_run("k1", "index", {})
    with writer._transaction() as connection:
        connection.exec_driver_sql("UPDATE runs SET machine = 'other', process_created = 1")
    assert writer.run("k1").state == "running"


def test_a_row_of_an_earlier_version_knows_its_machine_by_the_name(writer):
    writer.start_run("k1", "index", {})
    with writer._transaction() as connection:
        connection.exec_driver_sql("UPDATE runs SET machine = NULL")
    assert writer.run("k1").state == "running"
    with writer._transaction() as connection:
        connection.exec_driver_sql("UPDATE runs SET process_created = 1")
    assert writer.run("k1").state == "interrupted"


def test_a_job_is_asked_to_end_while_its_process_holds_the_library(address, writer, folder):
    writer.start_run("k1", "index", {})
    assert (writer.cancel_requested("k1"), writer.run("k1").cancel_requested_at) == (False, None)
    with JobTable.open(folder, address) as others:
        others.request_cancel("k1")
        assert others.cancel_requested("k1")
        first = writer.run("k1")
        assert writer.cancel_requested("k1")
        assert (first.state, first.cancel_requested_at is None) == ("running", False)
        others.request_cancel("k1")
        assert writer.run("k1").cancel_requested_at == first.cancel_requested_at
        others.update_run("k1", {"done": 1})
        others.beat("k1")
        assert writer.run("k1").heartbeat_at > first.heartbeat_at
        assert writer.run("k1").progress == {"done": 1}
        writer.finish_run("k1", "cancelled")
        writer.start_run("k2", "index", {})
        writer.finish_run("k2", "done")
        others.request_cancel("k2")
        assert not others.cancel_requested("k2")
        assert not others.cancel_requested("there is none")


def test_a_request_leaves_a_library_that_nobody_writes_as_one_file(folder):
    with CatalogWriter.open_writer(folder) as writer:
        writer.start_run("k1", "index", {})
    with JobTable.open(folder) as others:
        others.request_cancel("k1")
    with Catalog.open(folder) as reader:
        assert reader.cancel_requested("k1")
    CatalogWriter.open_writer(folder).close()
    assert {path.name for path in folder.glob("catalogue*")} == {"catalogue.sqlite3"}
