"""A photo that crashes its decoder, or never lets go of it, costs itself alone."""

import io
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import bad_decoders
from vitmae_search.photos import decode_pool, jpeg, worker_process
from vitmae_search.photos.memory_budget import MemoryBudget
from vitmae_search.photos.worker_process import WorkerProcess

LIMIT = 60


@pytest.fixture
def hostile(bench, monkeypatch):
    """`hostile(width)` writes a photo of this width, at which its process ends or stays."""
    opened = bench.plugin.open

    def open_with_bad_decoders(*arguments, **options):
        embedder = opened(*arguments, **options)
        embedder.prepare = bad_decoders.prepare
        return embedder

    monkeypatch.setattr(bench.plugin, "open", open_with_bad_decoders)
    return lambda width: Image.new("RGB", (width, 50)).save(bench.photos / f"007 {width}.png")


@pytest.fixture
def time_limit(monkeypatch):
    """`time_limit(cpu_seconds, wall_seconds)` for each answer of processes that start from then on."""

    def limit(cpu_seconds, wall_seconds):
        limited = partial(WorkerProcess, cpu_seconds=cpu_seconds, wall_seconds=wall_seconds)
        monkeypatch.setattr(decode_pool, "WorkerProcess", limited)

    return limit


def many_scans(scans, side=64):
    """A JPEG whose last scan, a few bytes that change nothing, is repeated."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(bytes([0xFF, jpeg.START_OF_SCAN]))
    return data[:last] + data[last:-2] * scans + data[-2:]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_crash_costs_one_photo_whatever_the_number_of_workers(bench, fill, hostile, workers):
    fill(30)
    for width in bad_decoders.CRASHES:
        hostile(width)
    report = bench.index(workers=workers)
    assert report.added == 30
    assert sorted(Path(failure.path).name for failure in report.failures) == [
        f"007 {width}.png" for width in bad_decoders.CRASHES
    ]
    assert all("a crash, or no memory" in failure.reason for failure in report.failures)
    again = bench.index(workers=workers)
    assert (again.unchanged, again.failed) == (30, 3)
    assert bench.embedded == 0


def test_what_was_decoded_before_a_crash_is_not_decoded_again(bench, fill, hostile, monkeypatch):
    fill(8)
    hostile(201)
    calls, call = [], WorkerProcess.call

    def counted(self, method, arguments):
        calls.append((method, len(arguments)))
        return call(self, method, arguments)

    monkeypatch.setattr("vitmae_search.indexing.reader.max", lambda *_: 100, raising=False)  # in a group
    monkeypatch.setattr(WorkerProcess, "call", counted)
    report = bench.index(workers=1)
    assert (report.added, report.failed) == (8, 1)
    assert [count for method, count in calls if method == "decode"] == [9, 1, 1], "all; it; those behind it"


@pytest.mark.parametrize(("width", "limits", "reason"), [
    (bad_decoders.SPINS, (1, 100), "it takes more than 1 seconds of computing time"),
    (bad_decoders.SLEEPS, (60, 5), "it takes more than 5 seconds"),
])  # fmt: skip
def test_a_photo_that_never_ends_is_one_failure(bench, fill, hostile, time_limit, width, limits, reason):
    fill(12)
    hostile(width)
    time_limit(*limits)
    report = bench.index(workers=1)
    assert (report.added, report.failed) == (12, 1)
    assert report.failures[0].reason == f"decoding {reason}"


def test_a_jpeg_of_thousands_of_scans_is_refused_at_once(bench, fill):
    fill(3)
    (bench.photos / "scans.jpg").write_bytes(many_scans(3010, side=5000))
    started = time.process_time()
    report = bench.index(workers=1)
    assert time.process_time() - started < 5
    assert (report.added, report.failed) == (3, 1)
    assert report.failures[0].reason == "a JPEG of 3,015 scans, more than the limit of 500"
    (bench.photos / "some.jpg").write_bytes(many_scans(400))
    assert bench.index(workers=1).added == 1


def test_one_that_passes_that_limit_is_ended_by_its_time(bench, fill, time_limit):
    fill(3)
    (bench.photos / "scans.jpg").write_bytes(many_scans(480, side=6000))
    time_limit(1, 60)
    report = bench.index(workers=1)
    assert (report.added, report.failed) == (3, 1)
    assert report.failures[0].reason == "decoding it takes more than 1 seconds of computing time"


def test_photos_wait_for_their_share_of_memory_and_one_that_is_larger_fails(bench, fill, monkeypatch):
    fill(6)
    for number in range(6):
        image = Image.new("RGB", (1500, 1500), (number * 40, 0, 0))
        image.save(bench.photos / f"large{number}.webp")  # 40 MB
    Image.new("RGB", (2500, 2500), "blue").save(bench.photos / "too large.webp")
    most = []

    class Watched(MemoryBudget):
        def acquire(self, count):
            granted = super().acquire(count)
            most.append(self._used)
            return granted

    monkeypatch.setattr(worker_process, "BUDGET", Watched(100_000_000))
    report = bench.index(workers=4)
    assert (report.added, report.failed) == (12, 1)
    assert report.failures[0].reason.startswith("2500 × 2500 pixels: decoding them from WEBP takes about")
    assert len(most) == 7
    assert max(most) == 81_000_000
    assert worker_process.BUDGET._used == 0


_PARENT = """
import signal, sys
from pathlib import Path
from tests.helpers import bad_decoders
from tests.indexing.conftest import Bench, TinyEmbedder
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
TinyEmbedder.prepare = staticmethod(bad_decoders.prepare)
bench = Bench(Path(sys.argv[1]))
report = bench.index(workers=2, on_progress=lambda progress: print(progress.done, flush=True))
print("report", report.interrupted, report.added, report.found, flush=True)
"""


def test_the_first_ctrl_c_ends_a_run_that_is_stuck_and_reports(bench, fill, hostile):
    fill(30)
    hostile(bad_decoders.SLEEPS)
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, os.fspath(bench.photos.parent)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    for line in parent.stdout:
        if int(line) >= 7:  # the one behind it is slept at
            break
    time.sleep(1)
    parent.send_signal(signal.SIGINT)
    output, _ = parent.communicate(timeout=LIMIT)
    assert parent.returncode == 0
    words = output.splitlines()[-1].split()
    assert words[:2] == ["report", "True"]
    assert int(words[2]) == int(words[3]) >= 4
    with bench.catalog() as catalog:
        assert catalog.count_photos() == int(words[2])
