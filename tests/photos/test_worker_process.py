"""A worker process that takes too long, or dies, says why, and is not waited for."""

from __future__ import annotations

import os
import pickle
import resource
import signal
from contextlib import closing
from functools import partial

import pytest

from vitmae_search.photos import worker_process
from vitmae_search.photos.worker_process import WORKER_DIED_REASON, WorkerDied, WorkerProcess

COUNTS = "__import__('types').SimpleNamespace(work=lambda counts: (sum(range(n)) for n in counts))"
FACTORY = pickle.dumps(partial(eval, COUNTS))
LONG = 10**12
"""Numbers to sum up that would take hours."""


def test_an_answer_that_takes_too_long_ends_the_process_and_says_so() -> None:
    with closing(WorkerProcess(FACTORY, cpu_seconds=1)) as worker:
        with pytest.raises(WorkerDied) as died:
            worker.call("work", [10, LONG])
        assert died.value.reason == "decoding it takes more than 1 seconds of computing time"
        assert worker.died


def test_the_limit_is_for_each_answer() -> None:
    """Together these answers take longer than the limit of one."""
    burn = (
        "import time\n"
        "def burn(n):\n"
        "    for _ in range(n):\n"
        "        end = time.process_time() + 0.5\n"
        "        while time.process_time() < end: pass\n"
        "        yield _\n"
        "class Handler:\n"
        "    work = staticmethod(burn)\n"
        "    used = staticmethod(lambda: [time.process_time()])\n"
    )
    code = f"(lambda names: (exec({burn!r}, names), names['Handler']())[1])({{}})"
    with closing(WorkerProcess(pickle.dumps(partial(eval, code)), cpu_seconds=2)) as worker:
        assert worker.call("work", 6) == [0, 1, 2, 3, 4, 5]
        assert worker.call("used")[0] > 3


def test_a_worker_that_is_killed_says_so() -> None:
    with closing(WorkerProcess(FACTORY)) as worker:
        worker._process.kill()
        with pytest.raises(WorkerDied) as died:
            worker.call("work", [4])
        assert died.value.reason == WORKER_DIED_REASON
        assert worker._process.returncode == -signal.SIGKILL


def test_no_core_file_is_left() -> None:
    code = "__import__('types').SimpleNamespace(work=lambda: __import__('resource').getrlimit(4))"
    assert resource.RLIMIT_CORE == 4
    with closing(WorkerProcess(pickle.dumps(partial(eval, code)))) as worker:
        assert worker.call("work")[0] == 0


@pytest.mark.parametrize("written", [b"", pickle.dumps(["a list", "that is longer"])[:-6]])
def test_a_parent_that_is_killed_before_it_asked_is_no_error(written: bytes) -> None:
    requests, to_requests = os.pipe()
    from_answers, answers = os.pipe()
    os.write(to_requests, written)
    os.close(to_requests)
    worker_process.main(requests, answers)
    assert os.read(from_answers, 1) == b""
    os.close(from_answers)
