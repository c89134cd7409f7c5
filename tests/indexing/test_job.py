"""A job's row while it runs: its heartbeat, and whether it is asked to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from vitmae_search.catalog import CatalogWriter, JobTable
from vitmae_search.errors import StorageError
from vitmae_search.indexing import job
from vitmae_search.indexing.job import run_job

WAIT = 30.0


@dataclass(frozen=True)
class Report:
    interrupted: bool


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_LISTEN_INTERVAL", 0.01)
    monkeypatch.setattr(job, "_HEARTBEAT_INTERVAL", 0.02)


@pytest.fixture(params=["file", "server"])
def address(request: pytest.FixtureRequest) -> str | None:
    if request.param == "file":
        return None
    server = request.getfixturevalue("postgresql")
    address: str = server.address(server.create())
    return address


@pytest.fixture
def writer(tmp_path: Path, address: str | None) -> Iterator[CatalogWriter]:
    with CatalogWriter.open_writer(tmp_path / "library", address) as catalog:
        yield catalog


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_long_step_has_a_heartbeat_and_can_be_cancelled(writer: CatalogWriter, address: str | None) -> None:
    def long_step(stop: Callable[[], bool]) -> Report:
        begun = heartbeat(writer)
        wait_until(lambda: heartbeat(writer) > begun)
        assert not stop()
        with JobTable.open(writer.folder, address) as others:
            others.request_cancel("k")
        wait_until(stop)
        return Report(True)

    run_job(writer, "k", "index", {}, long_step)
    ended = writer.run("k")
    assert ended is not None
    assert ended.state == "cancelled"
    still = heartbeat(writer)
    time.sleep(0.1)
    assert heartbeat(writer) == still, "the thread has ended"


def heartbeat(writer: CatalogWriter) -> float:
    found = writer.run("k")
    assert found is not None
    return found.heartbeat_at.timestamp()


class Away:
    """The rows of a catalogue whose server does not answer for a while."""

    def __init__(self, writer: CatalogWriter) -> None:
        self.start_run, self.finish_run, self.beat = writer.start_run, writer.finish_run, writer.beat
        self.asked, self.there = 0, writer

    def cancel_requested(self, key: str) -> bool:
        self.asked += 1
        if self.asked < 5:
            raise StorageError("the server does not answer")
        return self.there.cancel_requested(key)


def test_a_server_that_is_away_for_a_while_does_not_end_the_job(
    writer: CatalogWriter, address: str | None
) -> None:
    rows = Away(writer)

    def work(stop: Callable[[], bool]) -> Report:
        wait_until(lambda: rows.asked > 6)
        assert not stop()
        with JobTable.open(writer.folder, address) as others:
            others.request_cancel("k")
        wait_until(stop)
        return Report(True)

    run_job(rows, "k", "index", {}, work)


def test_a_job_without_a_row_asks_its_caller_alone(writer: CatalogWriter) -> None:
    run_job(writer, None, "index", {}, lambda stop: Report(stop()), lambda: True)
    assert writer.runs() == []
