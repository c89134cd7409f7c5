"""Reading ahead: worker threads work on the next photos while the caller uses the last ones."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_MAX_WORKERS = 32
_WORKER_BYTES = 1 << 30
"""Memory that one worker may need: for a photo of 100 megapixels that is decoded exactly."""


def default_workers() -> int:
    """Return one worker for each core that this process may use, as far as the machine's memory goes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # bytes; POSIX
    fitting = memory // _WORKER_BYTES
    return max(1, min(_MAX_WORKERS, cores, fitting))


def prefetch(
    items: Iterable[T],
    work: Callable[[T], R],
    *,
    workers: int,
    ahead: int,
    end_work: Callable[[], object] = lambda: None,
) -> Generator[R, None, None]:
    """Yield `work(item)` for each item, in order, computed in worker threads.

    Close the iterator to cancel what has not begun; that waits for what has.

    Args:
        items: What to work on; taken as the work proceeds.
        work: Called in the worker threads. What it raises is raised at its item's place.
        workers: Number of threads.
        ahead: Most items that are begun and not yet yielded.
        end_work: Called at the end, whatever brought it, before waiting for what has begun: Ctrl-C comes
            while this generator waits, and must not wait for work that may never end by itself.
    """
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        end_work()
        pool.shutdown(wait=True, cancel_futures=True)
