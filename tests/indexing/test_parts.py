"""The plan, reading ahead, embedding row by row, and progress, each alone."""

import threading
import time
import weakref
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitmae_search.catalog import KnownFile
from vitmae_search.embedding import open_embedder
from vitmae_search.errors import PluginBroken
from vitmae_search.indexing import progress
from vitmae_search.indexing.batcher import batch_size_for, health_check, run_with_fallback
from vitmae_search.indexing.plan import PendingFile, make_plan
from vitmae_search.indexing.progress import ProgressReporter
from vitmae_search.photos import prefetch as prefetching
from vitmae_search.photos.prefetch import default_workers, prefetch
from vitmae_search.records import Failure, Stamp

stamps = st.builds(
    Stamp,
    path=st.sampled_from("abcdef"),
    size=st.integers(0, 1),
    mtime_ns=st.integers(0, 1),
    device=st.integers(0, 1),
)
rows = st.builds(
    KnownFile,
    photo_id=st.integers(1, 9),
    stamp=stamps,
    content_id=st.integers(1, 3),
    missing=st.booleans(),
    embedded=st.booleans(),
)
failed = st.builds(
    Failure,
    path=st.sampled_from("abcdef"),
    reason=st.just("bad"),
    size=st.integers(0, 1),
    mtime_ns=st.integers(0, 1),
)


@given(
    seen=st.lists(stamps, unique_by=lambda s: s.path),
    known=st.lists(rows, unique_by=lambda r: r.stamp.path),
    failures=st.lists(failed, unique_by=lambda f: f.path),
    retry=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_each_file_of_the_walk_is_in_one_place(seen, known, failures, retry):
    table = {row.stamp.path: row for row in known}
    plan = make_plan(seen, table, {failure.path: failure for failure in failures}, retry_failed=retry)
    pending = [file.stamp.path for file in plan.pending]
    told = [failure.path for failure in plan.failed]
    assert len(pending) + len(told) + plan.unchanged == len(seen)
    assert pending == [stamp.path for stamp in seen if stamp.path in set(pending)], "the order of the walk"
    assert {row.stamp.path for row in plan.unseen} == table.keys() - {stamp.path for stamp in seen}
    assert set(plan.unseen_failures) == {f.path for f in failures} - {stamp.path for stamp in seen}
    if retry:
        assert not told
    for file in plan.pending:
        assert file.known is table.get(file.stamp.path)


def test_what_makes_a_job():
    here = Stamp("a", 1, 1, 1)

    def known(stamp=here, missing=False, embedded=True):
        return {"a": KnownFile(7, stamp, 3, missing, embedded)}

    def plan(rows, failures=(), **options):
        return make_plan([here], rows, {f.path: f for f in failures}, **options)

    assert plan({}).pending == [PendingFile(here)]
    assert plan(known()).unchanged == 1
    assert plan(known(missing=True)).returned == [7]
    assert plan(known(Stamp("a", 1, 1, 9))).renumbered == {1: [7]}
    assert plan(known(Stamp("a", 2, 1, 1))).pending
    assert plan(known(Stamp("a", 1, 2, 1))).pending
    assert plan(known(embedded=False)).pending
    assert plan({}, [Failure("a", "bad", 1, 1)]).pending == []
    assert plan({}, [Failure("a", "bad", 1, 2)]).pending
    assert plan({}, [Failure("a", "bad", 1, 1)], retry_failed=True).pending


@given(
    count=st.integers(0, 40),
    workers=st.integers(1, 5),
    ahead=st.integers(1, 12),
    delays=st.lists(st.integers(0, 2), min_size=1),
)
@settings(max_examples=30, deadline=None)
def test_reading_ahead_keeps_the_order_and_its_bound(count, workers, ahead, delays):
    begun, taken, most = [], [0], [0]
    lock = threading.Lock()

    def work(number):
        with lock:
            begun.append(number)
            most[0] = max(most[0], len(begun) - taken[0])
        time.sleep(delays[number % len(delays)] / 2000)
        return number * 2

    results = []
    for result in prefetch(range(count), work, workers=workers, ahead=ahead):
        results.append(result)
        with lock:
            taken[0] += 1
    assert results == [number * 2 for number in range(count)]
    assert most[0] <= ahead + 1


def test_an_error_comes_out_at_its_place():
    def work(number):
        if number == 3:
            raise ValueError("three")
        return number

    results = prefetch(range(9), work, workers=2, ahead=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_closing_cancels_what_has_not_begun():
    begun = []
    with closing(prefetch(range(1000), lambda n: begun.append(n) or n, workers=1, ahead=5)) as results:
        next(results)
    time.sleep(0.02)
    assert len(begun) < 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@given(bad=st.sets(st.integers(0, 8)))
@settings(max_examples=30, deadline=None)
def test_bad_rows_fail_alone(new_plugin, bad):
    plugin = new_plugin()
    embedder = open_embedder(plugin)
    pixels = [np.full((6, 6, 3), number + 1, np.uint8) for number in range(9)]

    def choke(row):
        if int(row[0, 0, 0]) - 1 in bad:
            raise ZeroDivisionError

    plugin.before_row = choke
    outcomes = run_with_fallback(embedder.embed, np.stack(pixels))
    for number, outcome in enumerate(outcomes):
        assert isinstance(outcome, Exception) == (number in bad)
        if number not in bad:
            assert np.array_equal(outcome, embedder.embed(pixels[number][None])[0])
    assert health_check(embedder.prepare, embedder.embed)


@pytest.mark.parametrize("error", [MemoryError, lambda: PluginBroken("tiny", "odd")])
def test_what_failed_is_let_go_before_parts_are_tried(error):
    """Or a full device would stay full."""
    held, sizes = [], []

    def run(batch):
        sizes.append(len(batch))
        assert all(memory() is None for memory in held)
        activations = np.empty(9)
        held.append(weakref.ref(activations))
        if len(batch) > 1:
            raise error()
        return batch

    rows = np.arange(5, dtype=np.float32)[:, None]
    assert np.array_equal(run_with_fallback(run, rows), rows)
    assert sizes == ([5, 3, 2, 1, 1, 1, 2, 1, 1] if error is MemoryError else [5, 1, 1, 1, 1, 1])


def test_no_rows_are_no_call(new_plugin):
    plugin = new_plugin()
    assert run_with_fallback(open_embedder(plugin).embed, np.empty((0, 6, 6, 3), np.uint8)) == []
    assert plugin.rows == 0


@pytest.mark.parametrize(
    ("shape", "dtype", "size"),
    [
        ((64, 64, 3), "uint8", 128),
        ((128, 128, 3), "uint8", 42),
        ((64, 64, 3), "float32", 42),
        ((224, 224, 3), "uint8", 32),
        ((5, 512, 512, 3), "float32", 32),
    ],
)
def test_small_photos_come_in_larger_batches(new_plugin, shape, dtype, size):
    embedder = open_embedder(new_plugin())
    embedder.shape, embedder.dtype = shape, np.dtype(dtype)
    assert batch_size_for(embedder) == size


@pytest.mark.parametrize(
    ("shape", "dtype", "said", "size"),
    [
        ((64, 64, 3), "uint8", 1, 1),
        ((224, 224, 3), "uint8", 512, 512),
        ((5, 224, 224, 3), "uint8", 512, 178),
        ((5, 4096, 4096, 3), "float32", 512, 1),
    ],
)
def test_a_plugin_names_the_size_of_its_batches_as_far_as_memory_goes(new_plugin, shape, dtype, said, size):
    embedder = open_embedder(new_plugin())
    embedder.shape, embedder.dtype, embedder.batch_size = shape, np.dtype(dtype), said
    assert batch_size_for(embedder) == size


def test_the_catalogue_hears_of_progress_seldom(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown, recorded = [], []
    reporter = ProgressReporter(shown.append, recorded.append)
    reporter.report("scanning", 0)
    for step in range(1, 101):
        now[0] += 0.05
        reporter.report("indexing", step, 100, current=f"{step}.jpg")
    reporter.report("done", 100, 100)
    assert len(shown) == 102
    assert [moment["phase"] for moment in recorded][:2] == ["scanning", "indexing"]
    assert recorded[-1]["phase"] == "done"
    assert len(recorded) == 7
    assert shown[100].photos_per_second == pytest.approx(20)
    assert reporter.seconds == pytest.approx(5)


@pytest.mark.parametrize(
    ("cores", "gigabytes", "workers"), [(1, 16, 1), (16, 64, 16), (16, 8, 8), (96, 512, 32), (2, 0.5, 1)]
)
def test_workers_are_as_many_as_cores_and_memory_allow(monkeypatch, cores, gigabytes, workers):
    monkeypatch.setattr(prefetching.os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    memory = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": int(gigabytes * 2**30) // 4096}
    monkeypatch.setattr(prefetching.os, "sysconf", memory.__getitem__)
    assert default_workers() == workers
