"""No file brings the program down: it is a photo or skipped with its reason, in bounded time and memory."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest

from tests.faults.fork_server import Done
from tests.faults.photo_mutations import mutate, whole_photos, write_mutations, write_oddities
from tests.faults.scenarios import Home, write_photo
from tests.faults.truth import Truth

pytestmark = pytest.mark.timeout(0)

MOST_MEGABYTES = 1500


def index(home: Home, *more: str) -> Done:
    return home.run("index", home.photos, "--embedder", "color_layout", "--json", *more)


def assert_whole(home: Home, done: Done) -> None:
    """The run came to its end, every file is a photo or has a reason, and the library is sound."""
    assert done.code == 0, done.err[-2000:]
    assert "Traceback" not in done.err
    report = done.json
    assert all(len(failure["reason"]) > 5 for failure in report["failures"])
    assert (
        report["found"]
        == report["failed"] + report["unchanged"] + report["added"] + report["updated"] + (report["moved"])
    )
    assert done.megabytes < MOST_MEGABYTES
    home.must("check")


def figures(what: str, done: Done) -> str:
    report = done.json
    return (
        f"{what}: {report['found']} files, {report['failed']} skipped with a reason, "
        f"{report['seconds']:.0f} s, {done.megabytes} MB"
    )


def test_mutated_photos(home, amount, record_property) -> None:
    whole = whole_photos()
    write_mutations(home.photos, amount(300, 2300, 10_000), 0, whole)
    for name, data in whole.items():
        (home.photos / name).write_bytes(data)
    done = index(home)
    assert_whole(home, done)
    failed = {failure["path"] for failure in done.json["failures"]}
    assert not failed & {str(home.photos / name) for name in whole}
    record_property("figures", figures("mutated photos", done))
    again = index(home)
    assert (again.json["added"], again.json["failed"]) == (0, done.json["failed"])


def test_oddities(home, record_property) -> None:
    write_oddities(home.photos, whole_photos())
    done = index(home)
    assert_whole(home, done)
    names = {os.path.basename(path) for path in Truth.of(home.library).photos}
    assert {"wrong-suffix.png", "line\nbreak.jpg", os.fsdecode(b"not-utf8-\xff\xfe.jpg"), "-rf.jpg"} <= names
    assert not names & {
        "empty.jpg",
        "bomb.png",
        "wide.png",
        "text.jpg",
        "pipe.jpg",
        "device.jpg",
        "socket.jpg",
    }
    record_property("figures", figures("oddities", done))


def test_files_that_change_meanwhile(home, amount, record_property) -> None:
    for seed in range(200):
        write_photo(home.photos / f"{seed:03d}.jpg", seed)
    end, changes = threading.Event(), 0

    def change() -> None:
        nonlocal changes
        draw = random.Random(1)
        while not end.is_set():
            path = home.photos / f"{draw.randrange(250):03d}.jpg"
            action = draw.randrange(4)
            if action == 0:
                path.unlink(missing_ok=True)
            elif action == 1 and path.exists():
                path.write_bytes(mutate(path.read_bytes() or b"x", draw))
            elif action == 2 and path.exists():
                path.rename(home.photos / f"{draw.randrange(250):03d}.jpg")
            else:
                write_photo(path, draw.randrange(1 << 30))
            changes += 1
            time.sleep(0.001)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(amount(1, 5, 30)):
            done = index(home, "--batch-size", "8")
            assert done.code == 0, done.err
            assert "Traceback" not in done.err
    finally:
        end.set()
        changing.join()
    assert_whole(home, index(home))
    known = {path for path, (_, missing) in Truth.of(home.library).photos.items() if not missing}
    failed = set(Truth.of(home.library).failures)
    on_disk = {str(path) for path in home.photos.iterdir()}
    assert known | failed == on_disk
    assert all(Truth.of(home.library).is_as_on_disk(path) for path in known)
    record_property("figures", f"files that change meanwhile: {changes} changes, 0 faults")


def test_pillows_own_test_images(home, pytestconfig, record_property) -> None:
    folder = pytestconfig.getoption("pillow_images")
    if folder is None:
        pytest.skip("needs Pillow's test images: --pillow-images FOLDER, see docs/reliability.md")
    home.photos.symlink_to(Path(folder).absolute())
    done = index(home)
    assert_whole(home, done)
    record_property("figures", figures("Pillow's test images", done))
