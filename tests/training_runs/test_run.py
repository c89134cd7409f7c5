"""Reading a run's folder: complete or half-written, running, finished, interrupted, or no run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from vitmae_search.errors import TrainingError
from vitmae_search.training_runs import LOCK_FILE, LOG_FILE, REPORT_FILE, RUN_FILE, read_training_run

OPTIONS = {"epochs": 10.0, "max_minutes": None}


def write_run(
    folder: Path,
    *,
    steps: int = 4,
    options: Mapping[str, Any] = OPTIONS,
    report: Mapping[str, Any] | None = None,
) -> Path:
    """A pretraining of `steps` logged steps, an epoch and 30 seconds each."""
    folder.mkdir(exist_ok=True)
    (folder / RUN_FILE).write_text(json.dumps({"kind": "pretrain", "folder": "/photos", "options": options}))
    lines = [{"step": n, "epoch": float(n), "loss": 1 / n, "seconds": 30.0 * n} for n in range(1, steps + 1)]
    (folder / LOG_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    if report is not None:
        (folder / REPORT_FILE).write_text(json.dumps(report))
    return folder


def test_a_run_without_a_process_is_interrupted_unless_its_report_says_finished(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert read_training_run(run).state == "interrupted"
    assert read_training_run(run).fraction == 0.4
    assert read_training_run(run).remaining is None
    write_run(run, report={"interrupted": True, "steps": 4})
    assert read_training_run(run).state == "interrupted"
    write_run(run, report={"interrupted": False, "steps": 4})
    assert read_training_run(run).state == "finished"
    assert read_training_run(run).fraction == 1.0
    # Resumed for longer, and killed.
    write_run(run, steps=6, report={"interrupted": False, "steps": 4})
    assert read_training_run(run).state == "interrupted"


def test_a_run_is_running_while_its_lock_is_held(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", report={"interrupted": False, "steps": 4})
    with FileLock(run / LOCK_FILE):
        read = read_training_run(run)
        assert read.state == "running"
        assert read.fraction == 0.4
        assert read.remaining == pytest.approx(120 / 0.4 * 0.6)
    assert read_training_run(run).state == "finished"


def test_reading_neither_takes_nor_creates_the_lock(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    read_training_run(run)
    assert not (run / LOCK_FILE).exists()
    (run / LOCK_FILE).touch()
    read_training_run(run)
    with FileLock(run / LOCK_FILE, timeout=0):
        pass


def _read_often(folder: str) -> set[str]:
    return {read_training_run(folder).state for _ in range(200)}


def test_concurrent_readers_do_not_take_each_other_for_a_training(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    run = write_run(tmp_path / "run")
    (run / LOCK_FILE).touch()
    with ThreadPoolExecutor(8) as pool:
        assert set().union(*pool.map(_read_often, [str(run)] * 8)) == {"interrupted"}


def test_photos_that_are_still_being_read_are_a_run_that_has_just_begun(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with FileLock(run / LOCK_FILE):
        read = read_training_run(run)
        assert (read.state, read.kind, read.fraction, read.remaining) == ("running", "", 0.0, None)
        assert read.photos_folder is None
    with pytest.raises(TrainingError, match="no training run"):
        read_training_run(run)


def test_time_counts_where_it_is_limited(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", options={"epochs": 10.0, "max_minutes": 4.0})
    assert read_training_run(run).fraction == 0.5
    run = write_run(tmp_path / "run", options={"epochs": 5.0, "max_minutes": 4.0})
    assert read_training_run(run).fraction == 0.8
    run = write_run(tmp_path / "run", options={"epochs": 1.0, "max_minutes": 1.0})
    assert read_training_run(run).fraction == 1.0


@pytest.mark.parametrize(
    "torn",
    [
        b'{"step": 5, "epo',
        b"\n\n",
        b"[1]\n",
        b'"text"\n',
        b"\xff\xfe\x00\n",
        b'{"step": NaN, "loss": "x"}',
        b"1" * 5000,
    ],
)
def test_a_half_written_log_loses_only_the_torn_line(tmp_path: Path, torn: bytes) -> None:
    run = write_run(tmp_path / "run")
    whole = (run / LOG_FILE).read_bytes()
    (run / LOG_FILE).write_bytes(whole + torn)
    assert [line["step"] for line in read_training_run(run).lines] == [1, 2, 3, 4]
    (run / LOG_FILE).write_bytes(torn + b"\n" + whole)
    assert [line["step"] for line in read_training_run(run).lines] == [1, 2, 3, 4]


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=0)
    huge = "9" * 400
    (run / LOG_FILE).write_text(
        f'{{"step": 1, "loss": NaN, "rate": 1e999, "seconds": {huge}, "best": true}}\n'
    )
    assert [dict(line) for line in read_training_run(run).lines] == [{"step": 1.0}]
    assert read_training_run(run).fraction == 0.0


@pytest.mark.parametrize(
    "options", [None, 3, {}, {"epochs": "ten"}, {"epochs": 0}, {"epochs": None, "max_minutes": []}]
)
def test_options_that_make_no_sense_are_no_progress(tmp_path: Path, options: Any) -> None:
    run = write_run(tmp_path / "run", options=options)
    assert read_training_run(run).fraction == 0.0


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b"\xff", b"null"])
def test_a_folder_whose_run_file_is_damaged_holds_no_run(tmp_path: Path, said: bytes) -> None:
    run = write_run(tmp_path / "a run 'of' \n mine")
    (run / RUN_FILE).write_bytes(said)
    with pytest.raises(TrainingError, match=r"'of' \\n mine.* no readable run\.json"):
        read_training_run(run)


def test_a_folder_that_is_gone_or_a_file_is_a_sentence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for path in (run / RUN_FILE, tmp_path / "nowhere", Path("")):
        with pytest.raises(TrainingError):
            read_training_run(path)
    shutil.rmtree(run)
    with pytest.raises(TrainingError, match="not a folder"):
        read_training_run(run)


def test_the_checkpoint_is_there_once_it_is_whole(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert read_training_run(run).checkpoint is None
    (run / "config.json").touch()
    assert read_training_run(run).checkpoint is None
    (run / "model.safetensors").touch()
    assert read_training_run(run).checkpoint == run
