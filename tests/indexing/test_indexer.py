"""Runs over real files: what is counted, what is kept, and that every vector is its own photo's."""

import os
import shutil

import numpy as np
import pytest

from vitmae_search.catalog import CatalogWriter
from vitmae_search.embedding import open_embedder
from vitmae_search.errors import DeviceError, LibraryError, PluginBroken, StorageError
from vitmae_search.photos import decode

BROKEN = b"\xff\xd8\xff\xe0 not a photo"


def test_a_folder_and_again(bench, fill):
    fill(11)
    fill(3, start=20, folder=bench.photos / "deeper" / 'Ünïcode \'n "quotes"')
    first = bench.index()
    assert (first.found, first.added, first.missing, first.failed) == (14, 14, 0, 0)
    assert (first.model, first.offline, first.problems, first.interrupted) == ("tiny", (), (), False)
    assert bench.embedded == 14
    bench.assert_mirrors_disk()
    again = bench.index()
    assert (again.found, again.unchanged, bench.embedded) == (14, 14, 0)
    bench.assert_mirrors_disk()


def test_real_photos(bench, real_photos):
    for name, path in real_photos.items():
        shutil.copy(path, bench.photos / path.name)
        assert path.name.startswith(name)
    report = bench.index()
    assert (report.added, report.failed) == (len(real_photos), 0)
    with bench.catalog() as catalog:
        path = os.fspath(bench.photos / "china.jpg")
        china = next(photo for photo in catalog.photos() if photo.path == path)
        assert (china.metadata.width, china.metadata.height) == (640, 427)
        expected = bench.vector_of((bench.photos / "china.jpg").read_bytes())
        assert np.array_equal(catalog.vector(1, china.content_id), expected)
    assert len(list((bench.library / "thumbnails").rglob("*.jpg"))) == len(real_photos)


@pytest.mark.parametrize("place", range(9))
def test_a_broken_photo_shifts_no_other(bench, fill, place):
    fill(9)
    (bench.photos / f"{place:03}.jpg").write_bytes(BROKEN)
    report = bench.index()
    assert (report.added, report.failed) == (8, 1)
    assert report.failures[0].path == os.fspath(bench.photos / f"{place:03}.jpg")
    bench.assert_mirrors_disk()


def test_a_row_that_the_plugin_chokes_on_fails_alone(bench, fill):
    paths = fill(10)
    bad = {bench.vector_of(paths[n].read_bytes()).tobytes() for n in (0, 3, 5, 9)}

    def fail_if_bad(row):
        if _vector(row).tobytes() in bad:
            raise ZeroDivisionError("of this photo")

    bench.plugin.before_row = fail_if_bad
    report = bench.index()
    assert [failure.path for failure in report.failures] == [os.fspath(paths[n]) for n in (0, 3, 5, 9)]
    assert all("of this photo" in failure.reason for failure in report.failures)
    assert report.added == 6
    bench.plugin.before_row = lambda row: None
    again = bench.index(retry_failed=True)
    assert (again.added, again.unchanged, bench.embedded) == (4, 6, 4)
    bench.assert_mirrors_disk()


def _vector(row):
    flat = row.reshape(1, -1).astype(np.float32) + 1
    return (flat / np.sqrt((flat * flat).sum(axis=1, keepdims=True)))[0]


def test_a_whole_batch_of_photos_that_the_plugin_chokes_on_fails_alone(bench, fill):
    paths = fill(5)
    bad = [bench.vector_of(path.read_bytes()).tobytes() for path in paths[:4]]

    def fail_if_bad(row):
        if _vector(row).tobytes() in bad:
            raise ZeroDivisionError("of these photos")

    bench.plugin.before_row = fail_if_bad
    report = bench.index()
    assert (report.added, report.failed) == (1, 4)


def test_a_plugin_that_works_no_more_stops_the_run_and_costs_nothing(bench, fill):
    fill(20)
    left = [8]

    def lose_device(row):
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("the device is lost")

    bench.plugin.before_row = lose_device
    with pytest.raises(PluginBroken, match="the device is lost"):
        bench.index(run_key="dies")
    with bench.catalog() as catalog:
        assert catalog.count_photos() == 8
        assert catalog.failures() == []
        assert catalog.run("dies").state == "failed"
        assert "device is lost" in catalog.run("dies").error
    bench.plugin.before_row = lambda row: None
    again = bench.index()
    assert (again.added, again.unchanged, bench.embedded) == (12, 8, 12)
    bench.assert_mirrors_disk()


def test_a_plugin_whose_prepare_is_broken_stops_the_run(bench, fill, monkeypatch):
    fill(6)
    bench.index()
    changed = fill(6, start=6)
    embedder_class = type(bench.plugin.open({"revision": 1}, device="cpu", precision="fp32"))

    def prepare(self, image):
        if image.size != (48, 32):  # what opening tries
            raise ZeroDivisionError("always")
        return np.zeros((6, 6, 3), np.uint8)

    monkeypatch.setattr(embedder_class, "prepare", prepare)
    with pytest.raises(PluginBroken, match="always"):
        bench.index()
    monkeypatch.undo()
    assert bench.index().added == len(changed)


def test_memory_that_does_not_hold_the_batch(bench, fill):
    fill(9)
    embed = type(bench.plugin.open({"revision": 1}, device="cpu", precision="fp32")).embed
    sizes = []

    class Small:
        def __call__(self, embedder, batch):
            sizes.append(len(batch))
            if len(batch) > 2:
                raise MemoryError
            return embed(embedder, batch)

    small = Small()
    opened = bench.plugin.open

    def open_small(options, *, device, precision):
        embedder = opened(options, device=device, precision=precision)
        embedder.embed = lambda batch: small(embedder, batch)
        return embedder

    bench.plugin.open = open_small
    assert bench.index(batch_size=8).added == 9
    assert sizes[0] == 8
    bench.assert_mirrors_disk()


def test_memory_that_does_not_hold_one_photo(bench, fill):
    fill(3)

    def full(row):
        raise MemoryError

    bench.plugin.before_row = full
    with pytest.raises(DeviceError, match="memory"):
        bench.index()


def test_known_failures_wait_for_a_change_or_a_retry(bench, fill):
    fill(3)
    bad = bench.photos / "bad.jpg"
    bad.write_bytes(BROKEN)
    assert bench.index().failed == 1
    reads = []
    original = os.open

    def watched(path, *args, **kwargs):
        reads.append(os.fspath(path))
        return original(path, *args, **kwargs)

    bench.decodes_here = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", watched)
        again = bench.index()
        assert os.fspath(bad) not in reads
        assert (again.found, again.failed, again.failures[0].path) == (4, 1, os.fspath(bad))
        assert bench.index(retry_failed=True).failed == 1
        assert os.fspath(bad) in reads
    fill(1, start=9)
    shutil.move(bench.photos / "009.jpg", bad)
    assert bench.index().added == 1
    bench.assert_mirrors_disk()
    bad.write_bytes(BROKEN + b"again")
    assert (bench.index().failed, bench.missing()) == (1, set())
    bench.assert_mirrors_disk()
    bad.unlink()
    assert (bench.index().failed, bench.missing()) == (0, set())
    bench.assert_mirrors_disk()


def test_changed_touched_deleted_and_back(bench, fill, jpegs):
    paths = fill(8)
    bench.index()
    paths[0].write_bytes(jpegs(100))
    os.utime(paths[1], ns=(0, 12345))
    kept = paths[2].read_bytes(), paths[2].stat().st_mtime_ns
    paths[2].unlink()
    report = bench.index()
    assert (report.updated, report.unchanged, report.missing, bench.embedded) == (1, 6, 1, 1)
    assert bench.missing() == {os.fspath(paths[2])}
    bench.assert_mirrors_disk()
    assert bench.index().missing == 0, "it is reported once"
    paths[2].write_bytes(kept[0])
    os.utime(paths[2], ns=(0, kept[1]))
    back = bench.index()
    assert (back.unchanged, back.added, bench.embedded, bench.missing()) == (8, 0, 0, set())
    bench.assert_mirrors_disk()


def test_copies_are_embedded_once(bench, fill, jpegs):
    fill(6)
    for number in range(12):
        (bench.photos / f"copy{number}.jpg").write_bytes(jpegs(number % 3))
    report = bench.index()
    assert (report.added, bench.embedded) == (18, 6)
    bench.assert_mirrors_disk()
    (bench.photos / "later.jpg").write_bytes(jpegs(5))
    assert (bench.index().added, bench.embedded) == (1, 0)
    bench.assert_mirrors_disk()


def test_copies_of_a_broken_photo_all_fail(bench, fill):
    fill(2)
    for number in range(9):
        (bench.photos / f"bad{number}.jpg").write_bytes(BROKEN)
    report = bench.index()
    assert (report.added, report.failed) == (2, 9)
    assert len({failure.reason for failure in report.failures}) == 1


def test_a_second_space_embeds_all_and_shares_the_photos(bench, fill, jpegs):
    fill(5)
    (bench.photos / "copy.jpg").write_bytes(jpegs(0))
    (bench.photos / "bad.jpg").write_bytes(BROKEN)
    first = bench.index()
    bench.revision = 2
    second = bench.index()
    assert (second.added, second.failed, bench.embedded) == (6, 1, 5)
    assert second.space != first.space
    bench.assert_mirrors_disk()
    assert bench.index().unchanged == 6
    bench.revision = 1
    assert bench.index().unchanged == 6
    bench.assert_mirrors_disk()


def test_each_photo_once_whatever_folders_are_given(bench, fill, monkeypatch):
    fill(2)
    inner = bench.photos / "inner"
    fill(2, start=10, folder=inner)
    hidden = bench.photos / ".hidden"
    fill(2, start=20, folder=hidden)
    monkeypatch.chdir(bench.photos.parent)
    report = bench.index("photos/", inner, "photos/../photos", bench.photos)
    assert report.found == 4
    assert bench.index(bench.photos, hidden).found == 6
    assert bench.index(inner).found == 2
    with bench.catalog() as catalog:
        assert {root.path for root in catalog.roots()} == {os.fspath(bench.photos), os.fspath(hidden)}
        assert catalog.count_photos() == 6
    hidden_only = bench.index(bench.photos)
    assert (hidden_only.found, hidden_only.missing) == (4, 0), "another root's photos are not gone"
    (hidden / "020.jpg").unlink()
    assert bench.index(bench.photos).missing == 1


def test_home_is_understood(bench, fill, monkeypatch):
    fill(2)
    monkeypatch.setenv("HOME", os.fspath(bench.photos.parent))
    assert bench.index("~/photos").found == 2


@pytest.mark.parametrize("name", ["nowhere", "photos/000.jpg"])
def test_what_is_no_folder_is_refused_and_changes_nothing(bench, fill, name):
    fill(1)
    with pytest.raises(LibraryError, match=r"is not there|is a file"):
        bench.index(bench.photos, bench.photos.parent / name)
    assert bench.opened == 0
    with bench.catalog() as catalog:
        assert (catalog.roots(), catalog.spaces(), catalog.count_photos()) == ([], [], 0)


def test_excluded_photos_leave_the_search_and_come_back(bench, fill):
    fill(3)
    fill(2, start=5, folder=bench.photos / "Screenshots")
    bench.index()
    shutil.copy(bench.photos / "Screenshots" / "005.jpg", bench.photos / "copy.jpg")
    report = bench.index(exclude=["Screenshots"])
    assert (report.found, report.missing, report.added, report.moved) == (4, 2, 1, 0)
    assert bench.index().unchanged == 6
    assert bench.missing() == set()


def test_the_librarys_own_thumbnails_are_no_photos(bench, fill, tmp_path):
    fill(3)
    bench.library = bench.photos / "my library"
    assert bench.index().found == 3
    assert bench.index().found == 3
    link = tmp_path / "link"
    link.symlink_to(bench.photos)
    assert bench.index(link).found == 3


def test_names_that_are_not_utf8(bench, jpegs):
    names = [b"caf\xe9.jpg", b"\xff\xfe.jpg", "emoji 📷\n.jpg".encode()]
    for number, name in enumerate(names):
        with open(os.path.join(os.fsencode(bench.photos), name), "wb") as file:
            file.write(jpegs(number))
    with open(os.path.join(os.fsencode(bench.photos), b"b\xe4d.jpg"), "wb") as file:
        file.write(BROKEN)
    report = bench.index(run_key="names")
    assert (report.added, report.failed) == (3, 1)
    assert bench.index().unchanged == 3
    folder = os.fsencode(bench.photos)
    os.rename(os.path.join(folder, names[0]), os.path.join(folder, b"\xe9.jpg"))
    assert (bench.index().moved, bench.embedded) == (1, 0)


def test_a_file_that_goes_during_the_run_counts_nowhere(bench, fill):
    paths = fill(12)

    def remove_last(_row):
        paths[-1].unlink(missing_ok=True)

    bench.plugin.before_row = remove_last
    report = bench.index(batch_size=2, workers=1)
    assert (report.found, report.failed) == (11, 0)
    bench.plugin.before_row = lambda row: None
    bench.assert_mirrors_disk()


def test_a_full_disk_stops_the_run_and_keeps_what_was_done(bench, fill, monkeypatch):
    fill(12)
    record = CatalogWriter.record_batch
    calls = []

    def full(self, *args, **kwargs):
        calls.append(1)
        if len(calls) > 2:
            raise StorageError("the disk is full")
        return record(self, *args, **kwargs)

    monkeypatch.setattr(CatalogWriter, "record_batch", full)
    with pytest.raises(StorageError, match="full"):
        bench.index(run_key="full")
    monkeypatch.undo()
    with bench.catalog() as catalog:
        assert catalog.count_photos() == 8
        assert catalog.run("full").state == "failed"
    again = bench.index()
    assert (again.added, again.unchanged, bench.embedded) == (4, 8, 4)
    bench.assert_mirrors_disk()


def test_progress_and_the_run_row(bench, fill):
    fill(9)
    (bench.photos / "bad.jpg").write_bytes(BROKEN)
    moments = []
    bench.index(run_key="key", on_progress=moments.append)
    phases = list(dict.fromkeys(moment.phase for moment in moments))
    assert phases == ["scanning", "indexing", "finishing", "done"]
    indexing = [moment for moment in moments if moment.phase == "indexing"]
    assert [moment.done for moment in indexing] == sorted(moment.done for moment in indexing)
    assert indexing[-1].total == 10
    assert (moments[-1].done, moments[-1].total, moments[-1].failed) == (10, 10, 1)
    with bench.catalog() as catalog:
        run = catalog.run("key")
        assert (run.kind, run.state, run.error) == ("index", "done", None)
        assert run.arguments["folders"] == [os.fspath(bench.photos)]
        assert (run.report["added"], run.report["failed"], run.progress["phase"]) == (
            9,
            1,
            "done",
        )


def test_batches_are_whole_whatever_their_size(bench, fill):
    fill(7)
    with pytest.raises(ValueError, match="batch_size"):
        bench.index(batch_size=0)
    for size in (1, 2, 7, 50):
        shutil.rmtree(bench.library, ignore_errors=True)
        assert bench.index(batch_size=size).added == 7
        bench.assert_mirrors_disk()


def test_the_index_file_follows_within_a_long_run(bench, fill, monkeypatch):
    from vitmae_search.indexing import indexer
    from vitmae_search.vectors import VectorCache

    saves = []
    save = VectorCache.save
    monkeypatch.setattr(VectorCache, "save", lambda self, source: saves.append(1) or save(self, source))
    monkeypatch.setattr(indexer, "_SAVE_INTERVAL", 0.0)
    fill(8)
    bench.index()
    assert len(saves) > 2


def test_a_photo_that_is_back_is_found_though_this_space_fails_on_it(bench, fill):
    """It has its vector in the other space, and must not stay hidden there."""
    path, _ = fill(2)
    bench.index()
    data, times = path.read_bytes(), path.stat().st_mtime_ns
    path.unlink()
    assert bench.index().missing == 1
    path.write_bytes(data)
    os.utime(path, ns=(times, times))
    bench.revision = 2
    refused = open_embedder(bench.plugin, {"revision": 2}).prepare(decode(data).image)

    def before_row(row):
        if np.array_equal(row, refused):
            raise ValueError("not this one")

    bench.plugin.before_row = before_row
    for _ in range(2):
        report = bench.index()
        assert (report.failed, report.missing) == (1, 0)
        assert bench.missing() == set()
    with bench.catalog() as catalog:
        assert catalog.searchable_ids(1).size == 2
