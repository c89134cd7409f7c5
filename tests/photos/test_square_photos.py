"""Square pictures: the same from processes as from this one, in order, whatever happens to a process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.photos import square_photos
from vitmae_search.photos.fork_server import FORK_SERVER
from vitmae_search.photos.square_photos import Square, decode_square, decode_squares
from vitmae_search.photos.worker_process import WORKER_DIED_REASON, WorkerProcess


@pytest.fixture
def paths(
    tmp_path: Path, write_photo: Callable[[Path, int], Path], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Seven photos, the fourth damaged."""
    monkeypatch.setattr(square_photos, "_CHUNK", 2)
    made = [write_photo(tmp_path / f"{i}.jpg", i) for i in range(7)]
    made[3].write_bytes(made[3].read_bytes()[:40])
    return [str(path) for path in made]


def same(ours: list[Square], theirs: list[Square]) -> bool:
    return len(ours) == len(theirs) and all(
        a == b if isinstance(a, str) else np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("resample", [None, Image.Resampling.BICUBIC])
def test_processes_give_what_this_one_does(paths: list[str], resample: Image.Resampling | None) -> None:
    here = [decode_square(path, 16, resample) for path in paths]
    assert [isinstance(one, str) for one in here] == [i == 3 for i in range(7)]
    assert isinstance(here[0], np.ndarray)
    assert here[0].shape == (16, 16, 3)
    assert same(list(decode_squares(paths, 16, resample, workers=1)), here)
    assert same(list(decode_squares(paths, 16, resample, workers=2)), here)


def test_a_process_that_dies_or_never_starts_loses_nothing(
    paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = [decode_square(path, 16) for path in paths]
    started: list[int] = []
    call = WorkerProcess.call

    def killed(self: WorkerProcess, method: str, chunk: list[str]) -> list[Square]:
        started.append(self._process.pid)
        if len(chunk) > 1:  # not the second time, when each photo comes alone
            self._process.kill()
        return call(self, method, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(WorkerProcess, "call", killed)
        assert same(list(decode_squares(paths, 16, workers=2)), here)
    assert started
    FORK_SERVER.close()
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    assert same(list(decode_squares(paths, 16, workers=2)), here)


def test_a_photo_at_which_its_process_dies_costs_no_other(
    paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = [decode_square(path, 16) for path in paths]
    call = WorkerProcess.call

    def crashes(self: WorkerProcess, method: str, chunk: list[str]) -> list[Square]:
        if paths[5] in chunk:
            self._process.kill()
        return call(self, method, chunk)

    monkeypatch.setattr(WorkerProcess, "call", crashes)
    found = list(decode_squares(paths, 16, workers=2))
    assert found[5] == WORKER_DIED_REASON
    assert same(found[:5] + found[6:], here[:5] + here[6:])


def test_whoever_stops_in_the_middle_leaves_no_process(paths: list[str]) -> None:
    some = decode_squares(paths * 20, 16, workers=2)
    next(some)
    pool = some.gi_frame.f_locals["pool"]
    assert pool._started
    some.close()
    assert all(process._process.poll() is not None for process in pool._started)
