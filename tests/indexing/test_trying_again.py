"""A file that failed is tried again by itself once what was at fault has changed."""

import errno
import os
import sys

import pytest
from PIL import Image

from vitmae_search.indexing import recorder
from vitmae_search.photos import decode_worker, formats, local_files


def run_again(bench, **options):
    report = bench.index(**options)
    return report.added, report.updated, report.unchanged, report.failed


@pytest.fixture
def refuse(bench, monkeypatch):
    """Let the system refuse to open some files, as it does for all but root."""
    bench.decodes_here = True
    refused = set()
    opened = local_files.open_regular_file

    def open_file(path):
        if os.fspath(path) in refused:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path)

    monkeypatch.setattr(local_files, "open_regular_file", open_file)
    return refused


def test_a_photo_that_could_not_be_read(bench, fill, refuse):
    path = os.fspath(fill(3)[0])
    refuse.add(path)
    assert run_again(bench) == (2, 0, 0, 1)
    assert run_again(bench) == (0, 0, 2, 1)
    refuse.clear()
    assert run_again(bench) == (1, 0, 2, 0)
    bench.assert_mirrors_disk()


def test_a_known_photo_that_cannot_be_read_for_a_while_keeps_its_vector(bench, fill, refuse):
    path = fill(3)[0]
    bench.index()
    refuse.add(os.fspath(path))
    path.chmod(0)  # also changes its ctime
    assert run_again(bench) == (0, 0, 2, 1)
    with bench.catalog() as catalog:
        assert len(catalog.photos()) == 3
    refuse.clear()
    path.chmod(0o644)
    assert run_again(bench) == (0, 0, 3, 0)
    assert bench.embedded == 0
    bench.assert_mirrors_disk()


def test_memory_that_was_short(bench, fill, monkeypatch):
    fill(3)
    with monkeypatch.context() as short:

        def decode(*arguments, **options):
            raise MemoryError

        short.setattr(decode_worker, "decode", decode)
        bench.decodes_here = True
        assert run_again(bench) == (0, 0, 0, 3)
    assert run_again(bench) == (3, 0, 0, 0)


def test_a_package_that_was_not_installed(bench, fill, monkeypatch):
    """The versions of the decoders are part of what a file was tried with."""
    (bench.photos / "bad.jpg").write_bytes(b"bad")
    fill(2)
    tries = []
    bench.decodes_here = True
    monkeypatch.setattr(decode_worker, "decode", lambda *a, **o: tries.append(1) or read_nothing())
    bench.index()
    bench.index()
    assert len(tries) == 3, "nothing has changed"
    monkeypatch.setattr(recorder, "decoder_versions", lambda: "pillow-heif 99")
    bench.index()
    assert len(tries) == 6


def read_nothing():
    raise local_files.PhotoTooLarge(None, "too large")


def test_the_versions_name_the_packages_that_decode(monkeypatch):
    assert "pillow " in formats.decoder_versions()
    monkeypatch.setattr(sys, "path", [])
    formats.decoder_versions.cache_clear()
    assert formats.decoder_versions() == "no pillow, no pillow-heif, no pillow-jxl-plugin, no rawpy, no av"
    formats.decoder_versions.cache_clear()


def test_a_plugin_whose_code_changed(bench, fill):
    fill(3)
    Image.new("RGB", (70, 50)).save(bench.photos / "black.jpg")
    tries = []

    def before_row(row):
        if row.max() < 20:
            tries.append(1)
            raise ValueError("a bug")

    bench.plugin.before_row = before_row
    assert run_again(bench) == (3, 0, 0, 1)
    tries.clear()
    assert run_again(bench) == (0, 0, 3, 1)
    assert tries == []
    bench.plugin.before_row = lambda row: None
    bench.plugin_code = "mended"
    assert run_again(bench) == (1, 0, 3, 0)
    bench.assert_mirrors_disk()


@pytest.mark.parametrize("again", ["as before", "repaired under its date"])
def test_a_damaged_file_is_tried_once(bench, fill, jpegs, again):
    fill(2)
    bad = bench.photos / "bad.jpg"
    bad.write_bytes(jpegs(7)[:50].ljust(len(jpegs(7)), b"x"))
    assert run_again(bench) == (2, 0, 0, 1)
    status = bad.stat()
    if again == "as before":
        assert run_again(bench) == (0, 0, 2, 1)
        assert run_again(bench, rescan=True) == (0, 0, 2, 1)
    else:
        bad.write_bytes(jpegs(7))
        os.utime(bad, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert run_again(bench) == (1, 0, 2, 0)
    bench.assert_mirrors_disk()


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_another_content_under_the_same_size_and_date(bench, fill, jpegs, how):
    paths = fill(3)
    paths[0].write_bytes(jpegs(0).ljust(20_000, b"\0"))
    bench.index()
    before = paths[0].stat()
    new = paths[0] if how == "in place" else bench.photos / "temporary"
    new.write_bytes(jpegs(9).ljust(20_000, b"\0"))
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.rename(paths[0])
    assert (paths[0].stat().st_size, paths[0].stat().st_mtime_ns) == (20_000, before.st_mtime_ns)
    assert run_again(bench) == (0, 1, 2, 0)
    assert run_again(bench) == (0, 0, 3, 0)
    bench.assert_mirrors_disk()


def test_a_rescan_reads_what_seems_unchanged(bench, fill, jpegs):
    paths = fill(3)
    bench.index()
    with bench.catalog() as catalog:  # as a file system without a ctime would have it
        rows = {row.photo_id: row.stamp for row in catalog.known_files(os.fspath(bench.photos), None)}
        first = min(rows)
        before = paths[0].stat()
        paths[0].write_bytes(jpegs(9)[: before.st_size].ljust(before.st_size, b"\0"))
        os.utime(paths[0], ns=(before.st_atime_ns, before.st_mtime_ns))
        ctime = paths[0].stat().st_ctime_ns
        catalog.record_stamps({first: type(rows[first])("", 0, 0, before.st_dev, ctime, before.st_ino)})
    assert run_again(bench) == (0, 0, 3, 0)
    added, updated, unchanged, failed = run_again(bench, rescan=True)
    assert (added, unchanged, updated + failed) == (0, 2, 1)
    bench.assert_mirrors_disk()


def test_other_permissions_cost_a_reading_and_no_more(bench, fill):
    paths = fill(3)
    bench.index()
    paths[0].chmod(0o600)
    assert run_again(bench) == (0, 0, 3, 0)
    assert bench.embedded == 0
