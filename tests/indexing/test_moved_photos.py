"""Moved photos keep their row and vector, and nothing is embedded anew."""

import functools
import os
import random
import shutil

import pytest

from vitmae_search.indexing import batcher, recorder


def ids(bench):
    with bench.catalog() as catalog:
        return {photo.path: photo.photo_id for photo in catalog.photos(missing=None)}


def test_renaming_a_third_embeds_nothing(bench, fill):
    paths = fill(30)
    bench.index()
    before = ids(bench)
    for path in paths[::3]:
        folder = bench.photos / "renamed"
        folder.mkdir(exist_ok=True)
        path.rename(folder / f"new {path.name}")
    report = bench.index()
    assert (report.moved, report.unchanged, report.missing, bench.embedded) == (10, 20, 0, 0)
    after = ids(bench)
    for path in paths[::3]:
        assert after[os.fspath(bench.photos / "renamed" / f"new {path.name}")] == before[os.fspath(path)]
    bench.assert_mirrors_disk()
    assert bench.index().unchanged == 30


def test_a_renamed_folder(bench, fill):
    fill(9, folder=bench.photos / "a")
    bench.index()
    (bench.photos / "a").rename(bench.photos / "b")
    assert (bench.index().moved, bench.embedded) == (9, 0)
    bench.assert_mirrors_disk()


def test_each_new_path_takes_one_of_several_gone_copies(bench, fill, jpegs):
    fill(2)
    for number in range(3):
        (bench.photos / f"old{number}.jpg").write_bytes(jpegs(50))
    bench.index()
    before = ids(bench)
    for number in range(3):
        (bench.photos / f"old{number}.jpg").unlink()
    for number in range(2):
        (bench.photos / f"new{number}.jpg").write_bytes(jpegs(50))
    report = bench.index(batch_size=1)
    assert (report.moved, report.missing, bench.embedded) == (2, 1, 0)
    after = ids(bench)
    assert {after[os.fspath(bench.photos / f"new{n}.jpg")] for n in range(2)} <= {
        before[os.fspath(bench.photos / f"old{n}.jpg")] for n in range(3)
    }
    (bench.photos / "new2.jpg").write_bytes(jpegs(50))
    (bench.photos / "new3.jpg").write_bytes(jpegs(50))
    report = bench.index()
    assert (report.moved, report.added, bench.missing()) == (1, 1, set()), "one was missing before"
    bench.assert_mirrors_disk()


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_photos_that_swap_names_keep_their_vectors(bench, fill, monkeypatch, batch_size):
    """A renumbered folder: every path has another photo's content, and no batch boundary loses one."""
    monkeypatch.setattr(batcher, "_MAX_WITHOUT_PIXELS", 0)
    paths = fill(14)
    bench.index()
    contents = [path.read_bytes() for path in paths]
    random.Random(0).shuffle(contents)
    for path, data in zip(paths, contents, strict=True):
        path.write_bytes(data)
    report = bench.index(batch_size=batch_size)
    assert (report.found, report.missing, bench.embedded) == (14, 0, 0)
    bench.assert_mirrors_disk()


def test_a_content_that_is_deleted_before_its_turn_is_read_again(bench, fill, monkeypatch):
    """As above, where no vector could be kept: nothing is lost, it is embedded anew."""
    paths = fill(14)
    bench.index()
    contents = [path.read_bytes() for path in paths]
    for path, data in zip(paths, contents[-1:] + contents[:-1], strict=True):
        path.write_bytes(data)
    monkeypatch.setattr(batcher, "_MAX_WITHOUT_PIXELS", 0)
    monkeypatch.setattr(
        recorder, "ReplacedContents", functools.partial(recorder.ReplacedContents, capacity=0)
    )
    report = bench.index(batch_size=1)
    assert (report.found, report.failed, report.missing) == (14, 0, 0)
    assert bench.embedded > 0
    bench.assert_mirrors_disk()


def test_a_photo_moves_away_and_another_takes_its_name(bench, fill, jpegs):
    paths = fill(5)
    bench.index()
    for number, path in enumerate(paths):
        path.rename(bench.photos / f"zz{number}.jpg")
        path.write_bytes(jpegs(200 + number))
    report = bench.index(batch_size=1)
    assert (report.updated, report.added + report.moved, bench.embedded) == (5, 5, 5)
    bench.assert_mirrors_disk()


def test_a_photo_moves_away_and_a_broken_file_takes_its_name(bench, fill, monkeypatch):
    monkeypatch.setattr(
        batcher, "_MAX_WITHOUT_PIXELS", 0
    )  # the failures are recorded in a batch of their own
    paths = fill(5)
    bench.index()
    for number, path in enumerate(paths):
        path.rename(bench.photos / f"zz{number}.jpg")
        path.write_bytes(b"broken")
    report = bench.index(batch_size=1)
    assert (report.failed, bench.embedded) == (5, 0)
    bench.assert_mirrors_disk()


def test_a_move_out_of_a_folder_that_is_not_walked(bench, fill, tmp_path):
    old = tmp_path / "old"
    fill(4, folder=old)
    fill(2, start=10)
    bench.index(bench.photos, old)
    before = ids(bench)
    shutil.move(old / "001.jpg", bench.photos / "here.jpg")
    shutil.copy(old / "002.jpg", bench.photos / "copy.jpg")
    report = bench.index()
    assert (report.moved, report.added, bench.embedded) == (1, 1, 0)
    assert ids(bench)[os.fspath(bench.photos / "here.jpg")] == before[os.fspath(old / "001.jpg")]
    bench.assert_mirrors_disk(bench.photos, old)


def test_a_photo_on_a_drive_that_is_away_is_copied_not_moved(bench, fill, tmp_path, jpegs, on_device):
    drive = tmp_path / "drive"
    fill(4, folder=drive)
    fill(2, start=10)
    on_device[os.fspath(drive)] = 71
    bench.index(bench.photos, drive)
    drive.rename(tmp_path / "unplugged")
    on_device.clear()
    (bench.photos / "same.jpg").write_bytes(jpegs(1))
    report = bench.index()
    assert (report.added, report.moved) == (1, 0)
    (bench.photos / "same too.jpg").write_bytes(jpegs(2))
    report = bench.index(bench.photos, drive)
    assert (report.added, report.moved, report.offline) == (1, 0, (os.fspath(drive),))
    (tmp_path / "unplugged").rename(drive)
    assert bench.index(bench.photos, drive).unchanged == 8
    bench.assert_mirrors_disk(bench.photos, drive)


def test_a_move_into_a_second_space_takes_the_row(bench, fill):
    paths = fill(4)
    bench.index()
    before = ids(bench)
    paths[0].rename(bench.photos / "new.jpg")
    bench.revision = 2
    report = bench.index()
    assert (report.moved, report.added, report.missing, bench.embedded) == (1, 3, 0, 4)
    assert ids(bench)[os.fspath(bench.photos / "new.jpg")] == before[os.fspath(paths[0])]
    bench.assert_mirrors_disk()
