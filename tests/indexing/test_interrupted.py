"""A run that is cancelled, interrupted or killed keeps its finished batches; to run again is to resume."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vitmae_search.indexing import indexer

PHOTOS = 60

_CHILD = """
import importlib.util, signal, sys, threading
from pathlib import Path
spec = importlib.util.spec_from_file_location("conftest", sys.argv[1])
conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(conftest)
interrupted = threading.Event()
def interrupt(number, frame):
    interrupted.set()
    raise KeyboardInterrupt
signal.signal(signal.SIGINT, interrupt)
bench = conftest.Bench(Path(sys.argv[2]))
left = int(sys.argv[3])
bench.heads = [conftest.head(seed) for seed in range(int(sys.argv[4]))]
def before_row(row):
    global left
    print("row", flush=True)
    left -= 1
    interrupted.wait(0.005 if left > 0 else None)  # it waits for its signal
bench.plugin.before_row = before_row
report = bench.index(run_key="child")
print("report", report.interrupted, report.added, flush=True)
sys.exit(130 if report.interrupted else 0)
"""


@pytest.fixture
def child(bench):
    """Begin to index in another process, and return it once it has embedded so many rows."""
    started = []

    def begin(rows: int) -> subprocess.Popen[str]:
        conftest = Path(__file__).with_name("conftest.py")
        photos = os.fspath(bench.photos.parent)
        numbers = str(rows + 6), str(len(bench.heads))
        command = [sys.executable, "-c", _CHILD, os.fspath(conftest), photos, *numbers]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        for _ in range(rows):
            assert process.stdout.readline() == "row\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def surely_recorded(rows: int) -> int:
    """While row number `rows` is embedded: all batches of 4 but that one, and the one being recorded."""
    return max(0, 4 * (-(-rows // 4) - 2))


def recorded(bench) -> int:
    with bench.catalog() as catalog:
        assert catalog.check() == []
        return catalog.count_photos()


@pytest.mark.parametrize("rows", [1, 7, 22, 41])
def test_a_kill_keeps_the_finished_batches(bench, fill, child, rows):
    fill(PHOTOS)
    process = child(rows)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = recorded(bench)
    assert surely_recorded(rows) <= done <= PHOTOS
    assert done % 4 == 0
    with bench.catalog() as catalog:
        assert catalog.run("child").state == "interrupted"
    report = bench.index()
    assert (report.added, report.unchanged, bench.embedded) == (PHOTOS - done, done, PHOTOS - done)
    bench.assert_mirrors_disk()


def test_a_kill_leaves_features_and_derived_vectors_in_step(bench, fill, child, new_head):
    bench.heads = [new_head(seed) for seed in range(2)]
    fill(PHOTOS)
    process = child(22)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with bench.catalog() as catalog:
        counts = [space.vectors for space in catalog.spaces()]
        bench.assert_in_step(catalog, catalog.spaces()[0])
    assert counts == [counts[0]] * 3
    assert surely_recorded(22) <= counts[0] <= PHOTOS
    report = bench.index()
    assert (report.added, report.unchanged) == (PHOTOS - counts[0], counts[0])
    bench.assert_mirrors_disk()


def test_ctrl_c_keeps_the_finished_batches_and_reports(bench, fill, child):
    fill(PHOTOS)
    process = child(10)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130
    done = recorded(bench)
    assert surely_recorded(10) <= done <= PHOTOS
    assert done % 4 == 0
    # An interrupt that comes with the commit leaves that batch out of the report, and never in.
    assert output.splitlines()[-1] in (f"report True {done}", f"report True {done - 4}")
    with bench.catalog() as catalog:
        assert catalog.run("child").state == "cancelled"
    report = bench.index()
    assert (report.added, report.unchanged, bench.embedded) == (PHOTOS - done, done, PHOTOS - done)
    bench.assert_mirrors_disk()


def test_a_cancelled_run_keeps_what_was_done_and_marks_nothing_missing(bench, fill):
    paths = fill(10)
    bench.index()
    paths[0].unlink()
    fill(20, start=50)
    limit = bench.plugin.rows + 8
    report = bench.index(cancelled=lambda: bench.plugin.rows >= limit, run_key="stop")
    assert report.interrupted
    done = report.added
    assert done in (8, 12), "with the batch that was begun meanwhile"
    assert (bench.embedded, report.unchanged, report.missing) == (done, 9, 0)
    assert bench.missing() == set()
    with bench.catalog() as catalog:
        assert catalog.run("stop").state == "cancelled"
        assert catalog.run("stop").report["added"] == done
    report = bench.index()
    assert (report.added, report.missing, bench.embedded) == (20 - done, 1, 20 - done)
    bench.assert_mirrors_disk()


def test_cancelled_in_the_walk(bench, fill, monkeypatch):
    monkeypatch.setattr(indexer, "_FILES_PER_CHECK", 2)
    fill(9)
    report = bench.index(cancelled=lambda: True)
    assert (report.found, report.interrupted) == (0, True)
    assert bench.index().added == 9


def test_ctrl_c_while_the_model_opens(bench, fill, monkeypatch):
    fill(3)

    def interrupt(catalog):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "open_space", interrupt)
    report = bench.index(run_key="early")
    assert (report.interrupted, report.found, report.space, report.model) == (True, 0, None, "")
