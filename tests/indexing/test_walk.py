"""What is away is not gone: roots that are absent, empty, on another device, or that could not be read."""

import os
import shutil
import tracemalloc

import numpy as np
import pytest

from vitmae_search.catalog import Indexed, KnownFile
from vitmae_search.errors import LibraryError
from vitmae_search.indexing import walk
from vitmae_search.indexing.walk import FolderState, FolderWalk, WalkedFolder, folder_state, is_gone
from vitmae_search.photos import is_under, scan
from vitmae_search.records import PhotoMetadata, ScanProblem, Stamp


def stamp(name, device=1, mtime=5, size=10):
    return Stamp(f"/r/{name}", size, mtime, device)


def row(name, device=1, missing=False, size=10):
    return KnownFile(hash(name) & 0xFFFF, stamp(name, device, size=size), 1, missing, True)


def walked(*stamps, device=1, recorded=1, exists=True, unread=()):
    return WalkedFolder("/r", exists, device, recorded, {s.path: s for s in stamps}, unread)


def test_judging_a_folder_that_is_as_it_was():
    assert folder_state(walked(stamp("a")), [row("a"), row("b")]) == FolderState(False)
    assert folder_state(walked(stamp("x")), [row("a"), row("b")]) == FolderState(False), (
        "all deleted, others added"
    )
    assert folder_state(walked(), []) == FolderState(False), "it never held any"
    assert folder_state(walked(), [row("a", missing=True)]) == FolderState(False), "all were missing before"


def test_judging_a_folder_that_is_absent_empty_or_another():
    for exists in (True, False):
        assert folder_state(walked(exists=exists), [row("a")]) == FolderState(False), "deleted"
        assert folder_state(walked(exists=exists, device=2), [row("a")]).offline
        assert folder_state(walked(exists=exists, device=None), [row("a")]).offline
    assert folder_state(walked(exists=False, device=2), []).offline
    assert folder_state(walked(exists=False, recorded=None), [row("a")]) == FolderState(False)
    assert folder_state(walked(exists=False, recorded=None, device=2), [row("a")]).offline
    assert folder_state(walked(stamp("x", 2), device=2), [row("a")]).offline
    assert folder_state(walked(stamp("a", 2, mtime=6, size=9), device=2), [row("a")]).offline, (
        "another card's photo"
    )


def test_judging_a_device_that_was_numbered_anew():
    again = [stamp("a", 2), stamp("b", 2, mtime=6)]
    assert folder_state(walked(*again, device=2), [row("a"), row("b"), row("c")]) == FolderState(False)
    redated = [stamp(name, 2, mtime=9) for name in "abc"]
    assert folder_state(walked(*redated, device=2), [row(name) for name in "abcdef"]) == FolderState(False)
    assert folder_state(walked(*redated, device=2), [row(name) for name in "abcdefg"]).offline


def test_judging_a_drive_that_was_mounted_inside():
    rows = [row("a"), row("in/b", 2), row("in/deep/c", 2), row("in/gone", 2, missing=True)]
    state = folder_state(walked(stamp("a")), rows)
    assert state == FolderState(False, frozenset({"/r/in/b", "/r/in/deep/c"}), ("/r/in",))
    assert folder_state(walked(stamp("a"), stamp("in/b", 7)), rows) == FolderState(False), "numbered anew"
    assert folder_state(walked(stamp("in/b", 2)), rows) == FolderState(False)


def test_judging_a_walk_with_a_problem():
    rows = [row("in/a"), row("in/b"), row("in/c", missing=True), row("d"), row("inner")]
    state = folder_state(walked(stamp("in/a"), unread=["/r/in"]), rows)
    assert state == FolderState(False, frozenset({"/r/in/b", "/r/in/c"}))
    assert folder_state(walked(unread=["/r"]), [row("a")]).protected == {"/r/a"}


@pytest.mark.parametrize(
    ("path", "folder", "under"),
    [("/a/b", "/a", 1), ("/a", "/a", 1), ("/ab", "/a", 0), ("/x", "/", 1), ("/a", "/a/b", 0)],
)
def test_is_under(path, folder, under):
    assert is_under(path, folder) == under


def test_is_gone(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("nowhere")
    assert not is_gone(str(tmp_path / "file"))
    assert not is_gone(str(tmp_path / "link"))
    assert is_gone(str(tmp_path / "nothing"))
    assert is_gone(str(tmp_path / "file" / "inside"))
    assert not is_gone("/" + "x" * 300), "a name too long cannot be told"


def snapshot(bench):
    with bench.catalog() as catalog:
        return catalog.photos(missing=None), catalog.failures(), catalog.space(1).revision


@pytest.mark.parametrize("away", ["absent", "empty", "another folder in it", "a file"])
def test_nothing_changes_under_a_root_whose_device_is_away(bench, fill, on_device, away):
    fill(5)
    (bench.photos / "bad.jpg").write_bytes(b"bad")
    on_device[os.fspath(bench.photos)] = 71
    bench.index()
    before = snapshot(bench)
    del on_device[os.fspath(bench.photos)]
    bench.photos.rename(bench.photos.parent / "unplugged")
    if away == "a file":
        bench.photos.write_bytes(b"")
    elif away != "absent":
        bench.photos.mkdir()
        if away == "another folder in it":
            (bench.photos / "lost").mkdir()
            (bench.photos / "note.txt").write_text("no photo")
    report = bench.index()
    assert (report.found, report.missing, report.failed) == (0, 0, 0)
    assert report.offline == (os.fspath(bench.photos),)
    assert snapshot(bench) == before
    with bench.catalog() as catalog:
        assert [root.offline for root in catalog.roots()] == [True]
    if bench.photos.is_dir():
        shutil.rmtree(bench.photos)
    bench.photos.unlink(missing_ok=True)
    (bench.photos.parent / "unplugged").rename(bench.photos)
    on_device[os.fspath(bench.photos)] = 72
    back = bench.index()
    assert (back.unchanged, back.failed, back.offline) == (5, 1, ())
    with bench.catalog() as catalog:
        assert [root.offline for root in catalog.roots()] == [False]
    bench.assert_mirrors_disk()


@pytest.mark.parametrize("how", ["the photos", "the folder", "excluded", "a folder above", "behind a link"])
def test_photos_that_were_deleted_are_missing(bench, fill, tmp_path, how):
    folder = tmp_path / "above" / "album"
    paths = fill(4, folder=folder)
    (folder / "bad.jpg").write_bytes(b"bad")
    asked = folder
    if how == "behind a link":
        asked = tmp_path / "link"
        asked.symlink_to(folder)
    bench.index(asked)
    options = {}
    if how == "the photos":
        for path in [*paths, folder / "bad.jpg"]:
            path.unlink()
    elif how == "excluded":
        options["exclude"] = ["*"]
    else:
        shutil.rmtree(folder if how == "the folder" else folder.parent)
    report = bench.index(asked, **options)
    assert (report.missing, report.failed, report.offline) == (4, 0, ())
    assert {os.path.basename(path) for path in bench.missing()} == {path.name for path in paths}
    with bench.catalog() as catalog:
        assert catalog.failures() == []
        assert [root.offline for root in catalog.roots()] == [False]


def test_a_link_to_a_drive_that_is_away(bench, fill, tmp_path, on_device):
    drive, link = tmp_path / "drive", tmp_path / "link"
    fill(2, folder=drive / "album")
    link.symlink_to(drive / "album")
    on_device[os.fspath(link)] = on_device[os.fspath(drive)] = 71
    bench.index(link)
    shutil.rmtree(drive)
    on_device.clear()
    assert bench.index(link).offline == (os.fspath(link),)
    assert bench.missing() == set()


def test_a_renamed_root_keeps_its_rows(bench, fill):
    """The old folder is gone from a device that is there, so its photos have moved."""
    fill(3)
    bench.index()
    renamed = bench.photos.parent / "renamed"
    bench.photos.rename(renamed)
    report = bench.index(renamed)
    assert (report.moved, report.added, bench.embedded) == (3, 0, 0)


def test_one_root_away_and_another_here(bench, fill, tmp_path, on_device):
    drive = tmp_path / "drive"
    fill(3, folder=drive)
    fill(3, start=10)
    on_device[os.fspath(drive)] = 71
    bench.index(bench.photos, drive)
    del on_device[os.fspath(drive)]
    shutil.rmtree(drive)
    fill(1, start=20)
    (bench.photos / "010.jpg").unlink()
    report = bench.index(drive, bench.photos)
    assert (report.found, report.added, report.missing) == (3, 1, 1)
    assert report.offline == (os.fspath(drive),)
    assert bench.missing() == {os.fspath(bench.photos / "010.jpg")}


def test_a_folder_inside_a_known_root_may_be_away_too(bench, fill, on_device):
    inside = bench.photos / "2019"
    fill(3, folder=inside)
    fill(2, start=10)
    on_device[os.fspath(inside)] = 71
    bench.index()
    shutil.rmtree(inside)
    on_device.clear()
    assert bench.index(inside).offline == (os.fspath(inside),)
    assert bench.index().offline == (os.fspath(inside),)
    assert bench.missing() == set()
    on_device[os.fspath(inside)] = 71
    assert bench.index(inside).missing == 3, "its device is there, and the folder is not"
    with bench.catalog() as catalog:
        assert [root.path for root in catalog.roots()] == [os.fspath(bench.photos)]
    with pytest.raises(LibraryError, match="not there"):
        bench.index(bench.photos / "2020")


def test_another_drive_at_the_same_place(bench, fill, on_device, jpegs):
    paths = fill(5)
    on_device[os.fspath(bench.photos)] = 71
    bench.index()
    before = snapshot(bench)
    other = bench.photos.parent / "other"
    bench.photos.rename(other)
    bench.photos.mkdir()
    for number, path in enumerate(paths[:2]):
        path.write_bytes(jpegs(300 + number) + b"\0")
    (bench.photos / "new.jpg").write_bytes(jpegs(310))
    on_device[os.fspath(bench.photos)] = 72
    for _ in range(2):
        report = bench.index()
        assert (report.found, report.offline) == (0, (os.fspath(bench.photos),))
        assert snapshot(bench) == before
    shutil.rmtree(bench.photos)
    other.rename(bench.photos)
    assert bench.index().unchanged == 5, "its own drive, under another number"
    bench.assert_mirrors_disk()


def test_a_drive_inside_a_root(bench, fill, on_device):
    mounted = bench.photos / "mnt" / "usb"
    fill(3, folder=mounted)
    fill(3, start=10)
    on_device[os.fspath(mounted)] = 71
    bench.index()
    unplugged = bench.photos.parent / "unplugged"
    mounted.rename(unplugged)
    mounted.mkdir()
    on_device.clear()
    (bench.photos / "010.jpg").unlink()
    report = bench.index()
    assert (report.unchanged, report.missing, report.offline) == (2, 1, (os.fspath(mounted),))
    assert bench.missing() == {os.fspath(bench.photos / "010.jpg")}
    mounted.rmdir()
    unplugged.rename(mounted)
    on_device[os.fspath(mounted)] = 72
    assert bench.index().unchanged == 5
    (mounted / "001.jpg").unlink()
    report = bench.index()
    assert (report.missing, report.offline) == (1, ()), "the new number is known by now"
    mounted.rename(unplugged)
    mounted.mkdir()
    on_device.clear()
    assert bench.index().offline == (os.fspath(mounted),)
    on_device[os.fspath(mounted)] = 72
    report = bench.index()
    assert (report.missing, report.offline) == (2, ()), "the drive is there, and empty"


def test_a_device_numbered_anew_is_followed(bench, fill, on_device):
    """Otherwise the photos from before would look like another drive's once all of them are deleted."""
    paths = fill(3)
    on_device[os.fspath(bench.photos)] = 71
    bench.index()
    on_device[os.fspath(bench.photos)] = 72
    fill(2, start=10)
    assert bench.index().added == 2
    for path in paths:
        path.unlink()
    report = bench.index()
    assert (report.missing, report.unchanged, report.offline) == (3, 2, ())


def test_a_folder_that_cannot_be_looked_into_protects_what_is_in_it(bench, fill, monkeypatch, jpegs):
    fill(4)
    closed = bench.photos / "closed"
    fill(2, start=10, folder=closed)
    (closed / "bad.jpg").write_bytes(b"bad")
    bench.index()

    def troubled(root, *, on_problem, **options):
        for one in scan(root, on_problem=on_problem, **options):
            if not is_under(one.path, os.fspath(closed)):
                yield one
        on_problem(ScanProblem(os.fspath(closed), "Permission denied"))

    monkeypatch.setattr(walk, "scan", troubled)
    (bench.photos / "000.jpg").unlink()
    (bench.photos / "moved.jpg").write_bytes(jpegs(10))
    (bench.photos / "new.jpg").write_bytes(jpegs(99))
    report = bench.index()
    assert (report.found, report.added, report.unchanged, report.missing) == (5, 2, 3, 1)
    assert report.problems == (ScanProblem(os.fspath(closed), "Permission denied"),)
    assert bench.missing() == {os.fspath(bench.photos / "000.jpg")}
    with bench.catalog() as catalog:
        assert len(catalog.failures()) == 1
    monkeypatch.undo()
    report = bench.index()
    assert (report.unchanged, report.failed, report.missing) == (7, 1, 0)
    bench.assert_mirrors_disk()


def test_a_walk_holds_no_photo_that_needs_nothing(bench, monkeypatch):
    count = 2000
    for number in range(count):
        folder = bench.photos / f"{number % 40}"  # the walk lists a folder as a whole
        folder.mkdir(exist_ok=True)
        (folder / f"{number:05}.jpg").touch()
    monkeypatch.setattr(walk, "_COMPARED_TOGETHER", 50)
    with bench.catalog() as catalog:
        space = bench.open_space(catalog).features
        vector = np.eye(1, space.dimension, dtype=np.float32)[0]
        metadata = PhotoMetadata(1, 1, "JPEG", None, None)
        stamps = list(scan(os.fspath(bench.photos), on_problem=print))
        catalog.record_batch(
            space.space_id, [Indexed(stamp, f"{i:064x}", metadata, vector) for i, stamp in enumerate(stamps)]
        )
        del stamps

        def held() -> tuple[int, int]:
            """Photos that are settled, and the most bytes that a walk takes at a time."""
            folders = FolderWalk(catalog, [os.fspath(bench.photos)], (), None, space_id=space.space_id)
            tracemalloc.start()
            for _ in folders.stamps():
                pass
            result = folders.finish()
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert not result.stamps
            assert not result.rows
            return result.settled, most

        held()  # fills caches of queries
        settled, most = held()
    assert settled == count
    assert most < 250 * count, "less than one string for each, let alone a row and a stamp"
