"""A batch is embedded while the last one is recorded: nothing is lost, doubled or mixed by that."""

import threading
import time
from contextlib import closing

import numpy as np
import pytest

from vitmae_search.catalog import CatalogWriter
from vitmae_search.embedding import open_embedder
from vitmae_search.errors import PluginBroken, StorageError
from vitmae_search.indexing import batcher, reader
from vitmae_search.indexing.batcher import Batcher
from vitmae_search.photos import digest

LIMIT = 20
"""Seconds until a test that waits in vain fails."""


@pytest.fixture
def recording(monkeypatch):
    """`recording(before)`: `before(number)` is called as batch `number`, from 1, is about to be recorded."""

    def hook(before):
        record, numbers = CatalogWriter.record_batch, iter(range(1, 1000))

        def hooked(self, *arguments):
            before(next(numbers))
            return record(self, *arguments)

        monkeypatch.setattr(CatalogWriter, "record_batch", hooked)

    return hook


def test_the_next_batch_is_embedded_while_one_is_recorded(bench, fill, recording):
    fill(12)
    rows, begun = [], [threading.Event() for _ in range(4)]

    def row(pixels):
        rows.append(pixels)
        begun[(len(rows) - 1) // 4].set()

    bench.plugin.before_row = row
    seen = []
    recording(lambda number: seen.append(number == 3 or begun[number].wait(LIMIT)))
    assert bench.index().added == 12
    assert seen == [True, True, True]
    bench.assert_mirrors_disk()


def test_one_batch_is_in_flight_and_no_other_is_begun_before_it_is_done(bench, fill):
    fill(40)
    at_work, most, threads = 0, 0, set()
    lock = threading.Lock()

    def row(pixels):
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        threads.add(threading.current_thread())
        time.sleep(0.001)
        with lock:
            at_work -= 1

    bench.plugin.before_row = row
    bench.index()
    assert most == 1
    assert len(threads) == 1
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("slow", ["embedding", "recording", "neither"])
def test_copies_moves_and_failures_in_any_order(bench, fill, jpegs, recording, slow):
    paths = fill(10)
    bench.index()
    for number, path in enumerate(paths[:4]):
        path.rename(path.with_name(f"moved{number}.jpg"))
    for number, path in enumerate(paths[4:8]):  # each row gets the content that another one had
        path.write_bytes(jpegs(4 + (number + 1) % 4))
    for number in range(30):
        (bench.photos / f"b{number:02}.jpg").write_bytes(jpegs(20 + number % 7))
        (bench.photos / f"c{number:02}.jpg").write_bytes(b"no photo" if number % 3 else jpegs(20 + number))
    pause = {"embedding": (0.003, 0), "recording": (0, 0.01), "neither": (0, 0)}[slow]
    bench.plugin.before_row = lambda row: time.sleep(pause[0])
    recording(lambda number: time.sleep(pause[1]))
    report = bench.index(workers=3)
    assert (report.moved, report.updated, report.failed) == (4, 4, 20)
    new = {jpegs(20 + number % 7) for number in range(30)} | {
        jpegs(20 + number) for number in range(0, 30, 3)
    }
    assert bench.embedded == len(new), "each new content once"
    bench.assert_mirrors_disk()


@pytest.mark.parametrize("bad", [range(9, 13), range(9, 10_000)])
def test_an_error_in_the_batch_in_flight(bench, fill, bad):
    """Where an ordinary image goes through, its photos are to blame; else the run ends."""
    fill(20)
    numbers = {}

    def row(pixels):
        if numbers.setdefault(pixels.tobytes(), len(numbers) + 1) in bad:
            raise RuntimeError("broken")

    bench.plugin.before_row = row
    if len(bad) == 4:
        report = bench.index()
        assert (report.added, report.failed) == (16, 4)
    else:
        with pytest.raises(PluginBroken, match="broken"):
            bench.index()
        with bench.catalog() as catalog:
            assert (catalog.count_photos(), catalog.check()) == (8, [])
        assert len(numbers) == 12 + 1, "three batches and an ordinary image: no other batch was begun"
    bench.plugin.before_row = lambda row: None
    assert bench.index(retry_failed=True).failed == 0
    bench.assert_mirrors_disk()


def test_an_error_in_recording_while_another_batch_is_in_flight(bench, fill, recording):
    fill(20)
    in_flight, threads = threading.Event(), set()

    def row(pixels):
        threads.add(threading.current_thread())
        if bench.plugin.rows >= 8:
            in_flight.set()
            time.sleep(0.05)  # so that it is still at work where nobody waits for it

    def fail(number):
        if number == 2:
            assert in_flight.wait(LIMIT)
            raise StorageError("the disk is full")

    bench.plugin.before_row = row
    recording(fail)
    with pytest.raises(StorageError, match="full"):
        bench.index()
    assert not any(thread.is_alive() for thread in threads), "it is waited for"
    with bench.catalog() as catalog:
        assert (catalog.count_photos(), catalog.check()) == (4, [])
    report = bench.index()
    assert (report.added, report.unchanged, bench.embedded) == (16, 4, 16)
    bench.assert_mirrors_disk()


def test_a_cancelled_run_keeps_the_batch_in_flight_and_begins_no_other(bench, fill):
    fill(20)
    in_flight, asked = threading.Event(), threading.Event()

    def row(pixels):
        if bench.plugin.rows == 4:
            in_flight.set()
            assert asked.wait(LIMIT)

    def cancelled():
        if in_flight.is_set():
            asked.set()
        return in_flight.is_set()

    bench.plugin.before_row = row
    report = bench.index(cancelled=cancelled)
    assert (report.interrupted, report.added, bench.embedded) == (True, 8, 8)
    bench.plugin.before_row = lambda row: None
    assert bench.index().added == 12
    bench.assert_mirrors_disk()


def test_a_batch_that_fills_slowly_is_begun_early(new_plugin, monkeypatch):
    """A kill or a cancelled run so loses about ten seconds, and not as much as a large batch holds."""
    monkeypatch.setattr(batcher, "_MAX_WAIT", 5.0)
    picture, now, sizes = np.full((6, 6, 3), 9, np.uint8), 100.0, []
    with (
        open_embedder(new_plugin()) as embedder,
        closing(Batcher(embedder.prepare, embedder.embed, 1000, clock=lambda: now)) as collected,
    ):
        assert not collected.due, "there is nothing to begin with"
        for _ in range(40):
            now += 0.75
            collected.add("photo", picture)
            if collected.due:
                sizes.append(len(collected.advance()))
    assert sizes == [0, 8, 8, 8, 8], "eight come in five seconds"


def test_a_run_that_reads_slowly_records_early(bench, fill, recording, monkeypatch):
    fill(40)
    numbers = []
    recording(numbers.append)
    monkeypatch.setattr(batcher, "_MAX_WAIT", 0.0)
    assert bench.index(batch_size=1000).added == 40
    assert len(numbers) == 40
    bench.assert_mirrors_disk()


def test_a_batch_is_untouched_while_the_next_one_is_collected(new_plugin):
    """Each item gets what came of its own pixels, and those without keep their places."""
    plugin, embedder_waits = new_plugin(), threading.Event()
    plugin.before_row = lambda row: embedder_waits.wait(LIMIT)
    pictures = [np.full((6, 6, 3), number, np.uint8) for number in range(12)]
    pictures = [picture + np.arange(3, dtype=np.uint8) * number for number, picture in enumerate(pictures)]
    taken = []
    with (
        open_embedder(plugin) as embedder,
        closing(Batcher(embedder.prepare, embedder.embed, 4)) as collected,
    ):
        for number, picture in enumerate(pictures):
            collected.add(f"copy {number}")
            collected.add(number, picture)
            if collected.due:
                embedder_waits.set()  # only now, when the next batch is whole
                taken += collected.advance()
                embedder_waits.clear()
            assert collected.waiting + len(taken) == 2 * (number + 1)
        embedder_waits.set()
        while collected.waiting:
            taken += collected.advance()
        assert collected.advance() == []
        assert [item for item, _ in taken] == [
            name for number in range(12) for name in (f"copy {number}", number)
        ]
        for item, outcome in taken:
            if isinstance(item, str):
                assert outcome is None
            else:
                assert np.array_equal(outcome, embedder.embed(pictures[item][None])[0])


def test_a_copy_whose_first_file_brought_another_content_is_read_anew(bench, fill, jpegs, monkeypatch):
    """As where it changed between two readings of it. Nothing waits for it for ever."""
    fill(10)
    for number in range(3):
        (bench.photos / f"copy{number}.jpg").write_bytes(jpegs(number))
    first_to_read, changed = reader.PhotoReader._first_to_read, {digest(jpegs(0)), digest(jpegs(7))}

    def seen_in_another(self, name, names):
        if name in changed:
            changed.remove(name)
            with self._lock:
                self._seen_digests.add(name)
        return first_to_read(self, name, names)

    monkeypatch.setattr(reader.PhotoReader, "_first_to_read", seen_in_another)
    assert bench.index().added == 13
    assert (changed, bench.embedded) == (set(), 10)
    bench.assert_mirrors_disk()
