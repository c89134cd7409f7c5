"""A writer that is killed leaves whole batches and a free lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitmae_search.catalog import Catalog, CatalogWriter

pytestmark = pytest.mark.sqlite_only("kills processes that write SQLite's file")

CHILD = """
import sys
from pathlib import Path

import numpy as np

from vitmae_search.catalog import CatalogWriter, Indexed, record_batch
from vitmae_search.records import Failure, PhotoMetadata, Stamp

folder, stop_inside = Path(sys.argv[1]), sys.argv[2] == "inside"
writer = CatalogWriter.open_writer(folder, wait=10)
names = dict(fingerprint="f", plugin="p", model="m", decode="scaled")
space = writer.ensure_space(**names, dimension=4, options={}, identity={}, provenance={}).space_id
if stop_inside:
    def hang(*args):
        print("inside", flush=True)
        sys.stdin.read()
    record_batch._add_vectors = hang
first = writer.status().photos
for start in range(first, first + 5000, 5):
    items = [
        Indexed(
            Stamp(f"/p/{n}.jpg", 1, 1, 1),
            f"{n:064x}",
            PhotoMetadata(1, 1, "JPEG"),
            np.array([1, 0, 0, 0], np.float32),
        )
        for n in range(start, start + 5)
    ]
    print("begin", flush=True)
    writer.record_batch(space, items, [Failure(f"/p/{start}.bad", "truncated", 1, 1)])
"""


def start(folder: Path, mode: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, os.fspath(folder), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def read_until(child: subprocess.Popen[bytes], word: bytes, times: int = 1) -> None:
    assert child.stdout is not None
    seen = 0
    while seen < times:
        line = child.stdout.readline()
        assert line, f"the child ended: {child.wait()}"
        seen += line.strip() == word


def kill(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdin.close()
    child.stdout.close()


def assert_whole_batches(catalog: Catalog) -> int:
    [space] = catalog.spaces()
    photos = catalog.count_photos()
    assert photos % 5 == 0
    assert space.vectors == photos == catalog.status().contents
    assert space.revision == photos // 5 == len(catalog.failures())
    assert catalog.check() == []
    return photos


def test_kills_at_any_moment_leave_whole_batches(folder):
    done = 0
    for delay in (0.0, 0.003, 0.011):
        child = start(folder, "run")
        read_until(child, b"begin", times=4)
        time.sleep(delay)
        kill(child)
        with Catalog.open(folder) as reader:
            now = assert_whole_batches(reader)
        assert now >= done + 15
        done = now


def test_a_kill_inside_a_transaction_leaves_nothing_of_it(folder):
    child = start(folder, "run")
    read_until(child, b"begin", times=3)
    kill(child)
    with Catalog.open(folder) as reader:
        before = assert_whole_batches(reader)
    child = start(folder, "inside")
    read_until(child, b"inside")  # photo rows are written, vectors are not
    with Catalog.open(folder) as reader:  # a reader beside it sees nothing of the batch
        assert assert_whole_batches(reader) == before
        kill(child)
        assert assert_whole_batches(reader) == before
    with CatalogWriter.open_writer(folder, wait=0) as writer:  # the lock is free at once
        assert assert_whole_batches(writer) == before
