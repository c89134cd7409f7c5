"""Single photos are decoded where they can be killed, and a process is kept for the next one."""

import io
import os
import signal
import threading
import time
from contextlib import closing

import psutil
import pytest
from PIL import Image

from tests.helpers import bad_decoders
from vitmae_search.errors import DamagedPhoto, PhotoError
from vitmae_search.library.previews import preview
from vitmae_search.photos import PHOTO_PROCESSES, PhotoProcesses, decode, digest, jpeg, photo_processes
from vitmae_search.photos.worker_process import WORKER_DIED_REASON


@pytest.fixture
def processes():
    with closing(PhotoProcesses()) as made:
        yield made


@pytest.fixture
def slow_jpeg():
    """A JPEG of a kilobyte a scan and 36 megapixels, which takes many seconds to decode."""
    buffer = io.BytesIO()
    Image.new("L", (6000, 6000), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(bytes([0xFF, jpeg.START_OF_SCAN]))
    return data[:last] + data[last:-2] * 480 + data[-2:]


def test_it_gives_what_decoding_here_does(processes, real_photos, tmp_path):
    for path in real_photos.values():
        here = decode(path.read_bytes(), shrink_to=320)
        there = processes.decode(path.read_bytes(), shrink_to=320)
        assert there.image.tobytes() == here.image.tobytes()
        assert there.metadata == here.metadata
        loaded = processes.load(os.fspath(path), 320)
        assert loaded.digest == digest(path.read_bytes())
        assert loaded.image.tobytes() == here.image.tobytes()


def test_errors_are_those_of_decoding_here_and_cost_no_process(processes):
    first = processes.call(bad_decoders.process)
    with pytest.raises(PhotoError, match=r"bad\.jpg: truncated JPEG"):
        processes.decode(b"\xff\xd8\xff\xe0", path="bad.jpg")
    assert processes.call(bad_decoders.process) == first


def test_a_crash_is_an_error_of_that_photo(processes):
    first = processes.call(bad_decoders.process)
    with pytest.raises(DamagedPhoto) as error:
        processes.call(bad_decoders.crash, path="bad.png")
    assert (error.value.path, error.value.reason) == ("bad.png", WORKER_DIED_REASON)
    assert processes.call(bad_decoders.process) != first


def test_a_process_that_was_killed_meanwhile_costs_nothing(processes):
    killed = processes.call(bad_decoders.process)
    os.kill(killed, signal.SIGKILL)
    assert processes.call(bad_decoders.process) != killed


def test_what_takes_too_long_is_ended_and_said(slow_jpeg, monkeypatch, tmp_path):
    PHOTO_PROCESSES.end_all()
    monkeypatch.setattr(photo_processes, "_CPU_SECONDS", 1)
    with pytest.raises(DamagedPhoto, match="takes more than 1 seconds of computing time"):
        preview(slow_jpeg, 200)
    PHOTO_PROCESSES.end_all()


def test_closing_ends_what_is_stuck(processes):
    found = []

    def call():
        try:
            processes.call(bad_decoders.sleep)
        except DamagedPhoto as error:
            found.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not processes._busy:
        time.sleep(0.01)
    [process] = processes._busy
    processes.close()
    thread.join(30)
    assert not thread.is_alive()
    assert len(found) == 1
    assert not psutil.pid_exists(process._process.pid)


def test_one_process_serves_one_after_the_other_and_more_serve_many_at_once(processes):
    assert len({processes.call(bad_decoders.process) for _ in range(5)}) == 1
    threads = [threading.Thread(target=processes.call, args=(time.sleep, 0.5)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(processes._idle) == 2
