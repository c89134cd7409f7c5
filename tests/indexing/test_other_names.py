"""One file under two names is one photo: links, hard links, and a folder that is mounted twice."""

import os
import shutil
import subprocess

import pytest


@pytest.fixture
def alias(bench, tmp_path):
    """Make a second folder with the same files, as asked for."""
    made = []

    def make(how):
        other = tmp_path / "other"
        if how == "link":
            other.symlink_to(bench.photos)
        elif how == "hard links":
            shutil.copytree(bench.photos, other, copy_function=os.link)
        elif how == "links":
            shutil.copytree(bench.photos, other, copy_function=os.symlink)
        else:
            other.mkdir()
            if subprocess.run(["mount", "--bind", bench.photos, other], capture_output=True).returncode:
                pytest.skip("only root may mount")
            made.append(other)
        return other

    yield make
    for folder in made:
        subprocess.run(["umount", folder], check=True)


def paths(bench):
    with bench.catalog() as catalog:
        return sorted(photo.path for photo in catalog.photos())


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("how", ["link", "hard links", "links", "mount"])
def test_a_folder_under_two_names(bench, fill, alias, how, together):
    fill(3)
    other = alias(how)
    folders = [bench.photos, other] if together else [other]
    if not together:
        bench.index()
    for added in (3 if together else 0, 0):
        report = bench.index(*folders)
        assert (report.added, report.unchanged) == (added, 3 * len(folders) - added)
        assert (report.missing, report.moved) == (0, 0)
        assert paths(bench) == [os.fspath(bench.photos / f"{number:03}.jpg") for number in range(3)]
    with bench.catalog() as catalog:
        assert [root.path for root in catalog.roots()] == [os.fspath(bench.photos)]
    bench.assert_mirrors_disk()


def test_a_new_photo_behind_a_link_is_found(bench, fill, alias):
    fill(2)
    bench.index()
    other = alias("hard links")
    fill(1, start=9, folder=other)
    report = bench.index(other)
    assert (report.added, report.unchanged) == (1, 2)
    with bench.catalog() as catalog:
        assert len(catalog.roots()) == 2


def test_the_other_name_takes_over_once_the_first_is_gone(bench, fill, alias):
    fill(2)
    bench.index()
    other = alias("hard links")
    bench.index(other)
    shutil.rmtree(bench.photos)
    report = bench.index(other)
    assert (report.moved, report.added, bench.embedded) == (2, 0, 0)
    assert paths(bench) == [os.fspath(other / "000.jpg"), os.fspath(other / "001.jpg")]


def test_a_real_copy_stays_a_copy(bench, fill, tmp_path):
    fill(2)
    shutil.copytree(bench.photos, tmp_path / "copy")
    report = bench.index(bench.photos, tmp_path / "copy")
    assert report.added == 4


def test_an_excluded_name_does_not_hide_the_other(bench, fill):
    (path,) = fill(1)
    bench.index()
    os.link(path, bench.photos / "second.jpg")
    report = bench.index(exclude=["000.jpg"])
    assert (report.found, report.missing) == (1, 1)
    assert paths(bench) == [os.fspath(bench.photos / "second.jpg")]
