"""Pretraining in a child process: the library records it, is unlocked meanwhile, and can stop it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import LibraryError
from vitmae_search.library import Library
from vitmae_search.records import JobRecord
from vitmae_search.training_runs import list_training_runs, read_training_run
from vitmae_search.training_runs.run import RUN_FILE

WAIT = 120.0
QUICK = (
    "--epochs",
    "1e6",
    "--batch-size",
    "2",
    "--threads",
    "1",
    "--image-size",
    "16",
    "--precision",
    "fp32",
)


def wait_until(library: Library, key: str, done: Callable[[JobRecord], bool]) -> JobRecord:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        run = library.job(key)
        if run is not None and done(run):
            return run
        assert run is None or run.state == "running", run
        time.sleep(0.05)
    raise AssertionError(f"{library.job(key)} after {WAIT} s")


@pytest.fixture(autouse=True)
def none_left(library: Library) -> Iterator[None]:
    """What a failed test leaves running would train for ever."""
    yield
    for run in library.jobs():
        if run.state == "running":
            os.kill(run.pid, signal.SIGKILL)


def test_a_pretraining_is_recorded_leaves_the_library_unlocked_and_can_be_stopped(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "trained here"
    key = library.start_job("pretrain", photos, "-o", str(output), *QUICK)
    begun = wait_until(
        library, key, lambda run: bool((output / RUN_FILE).exists() and read_training_run(output).lines)
    )
    assert (begun.kind, begun.state) == ("pretrain", "running")
    assert begun.arguments == {"folder": str(photos), "output": str(output)}
    assert list_training_runs() == [output]
    assert read_training_run(output).state == "running"
    library.index(photos)  # nothing holds the lock

    library.cancel_job(key)
    ended = wait_until(library, key, lambda run: run.state != "running")
    assert ended.state == "cancelled"
    assert ended.report is not None
    assert ended.report["steps"]
    stopped = read_training_run(output)
    assert stopped.state == "interrupted"
    assert stopped.checkpoint == output


def test_the_end_of_a_training_is_recorded_once_the_lock_is_free(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    quick = ("--max-minutes", "0.0001", *QUICK)
    key = library.start_job("pretrain", photos, "-o", str(output), *quick)
    with CatalogWriter.open_writer(library.folder, wait=WAIT):
        deadline = time.monotonic() + WAIT
        while not (output / "report.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        run = library.job(key)
        assert run is not None
        assert run.state == "running"
    assert wait_until(library, key, lambda run: run.state != "running").state == "done"
    assert read_training_run(output).state == "finished"


def test_a_pretraining_that_cannot_start_reports_the_reason(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    key = library.start_job("pretrain", empty, "-o", str(tmp_path / "run"), *QUICK)
    failed = wait_until(library, key, lambda run: run.state != "running")
    assert failed.state == "failed"
    assert str(empty) in (failed.error or "")
    with CatalogWriter.open_writer(library.folder), pytest.raises(LibraryError, match="is being written"):
        library.start_job("pretrain", photos, "-o", str(tmp_path / "other"), *QUICK)
    with pytest.raises(LibraryError, match="not a folder"):
        library.start_job("pretrain", tmp_path / "nowhere")
    with pytest.raises(LibraryError, match="No such option"):
        library.start_job("pretrain", photos, "--no-such-option")
