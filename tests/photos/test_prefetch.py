"""Reading ahead in threads: the order, its bound, errors, and how many threads."""

import threading
import time
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitmae_search.photos import prefetch as prefetch_module
from vitmae_search.photos.prefetch import default_workers, prefetch


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


@pytest.mark.parametrize(
    ("cores", "gigabytes", "workers"), [(1, 16, 1), (16, 64, 16), (16, 8, 8), (96, 512, 32), (2, 0.5, 1)]
)
def test_workers_are_as_many_as_cores_and_memory_allow(monkeypatch, cores, gigabytes, workers):
    monkeypatch.setattr(
        prefetch_module.os, "sched_getaffinity", lambda process: set(range(cores)), raising=False
    )
    memory = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": int(gigabytes * 2**30) // 4096}
    monkeypatch.setattr(prefetch_module.os, "sysconf", memory.__getitem__)
    assert default_workers() == workers
