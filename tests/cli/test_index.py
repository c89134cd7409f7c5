"""`index`: its JSON, its exit codes, and its text."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from vitmae_search.catalog import CatalogWriter

KEYS = {
    *("found", "added", "updated", "moved", "unchanged", "missing", "failed", "offline", "failures"),
    *("seconds", "photos_per_second", "model", "space"),
}


def test_json_has_every_key(vitmae_search: Callable[..., Any], photos: Path) -> None:
    done = vitmae_search("index", photos, "--embedder", "color_layout", "--json")
    assert done.code == 0
    assert set(done.json) >= KEYS
    assert (done.json["found"], done.json["added"]) == (8, 8)


def test_again_adds_nothing(vitmae_search: Callable[..., Any], indexed: Path) -> None:
    report = vitmae_search("index", indexed, "--json").json
    assert (report["added"], report["unchanged"]) == (0, 8)
    assert report["model"] == "color-layout", "a bare index stays in the current space"


def test_decode_alone_changes_only_that(vitmae_search: Callable[..., Any], indexed: Path) -> None:
    report = vitmae_search("index", indexed, "--decode", "exact", "--json").json
    assert (report["model"], report["added"]) == ("color-layout", 8), "a space of its own, same plugin"
    spaces = vitmae_search("spaces", "--json").json["spaces"]
    assert [(space["plugin"], space["decode"]) for space in spaces] == [
        ("color_layout", "scaled"),
        ("color_layout", "exact"),
    ]


def test_a_run_into_another_space_says_which_one_searches_use(
    vitmae_search: Callable[..., Any], indexed: Path
) -> None:
    said = "searches use space 1; `vitmae-search spaces use 2` changes that"
    assert vitmae_search("index", indexed, "--decode", "exact").out.splitlines()[-1] == said
    assert "searches use" not in vitmae_search("index", indexed).out
    vitmae_search("spaces", "use", 2)
    assert "searches use" not in vitmae_search("index", indexed).out


def test_a_bad_file_is_reported_and_ends_with_0(vitmae_search: Callable[..., Any], photos: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"not a photo")
    done = vitmae_search("index", photos, "--embedder", "color_layout", "--json")
    assert done.code == 0
    assert (done.json["added"], done.json["failed"]) == (8, 1)
    (failure,) = done.json["failures"]
    assert failure["path"] == str(photos / "bad.jpg")
    assert failure["reason"]
    again = vitmae_search("index", photos)
    assert "bad.jpg" in again.out


def test_moved_missing_and_back(vitmae_search: Callable[..., Any], indexed: Path, tmp_path: Path) -> None:
    (indexed / "0.jpg").rename(indexed / "zero.jpg")
    shutil.move(indexed / "1.jpg", tmp_path / "aside.jpg")
    report = vitmae_search("index", indexed, "--json").json
    assert (report["moved"], report["missing"], report["added"]) == (1, 1, 0)
    shutil.move(tmp_path / "aside.jpg", indexed / "1.jpg")
    report = vitmae_search("index", indexed, "--json").json
    assert report["missing"] == 0
    assert report["found"] == 8


def test_an_unmounted_root_is_offline(
    vitmae_search: Callable[..., Any], indexed: Path, tmp_path: Path
) -> None:
    indexed.rename(tmp_path / "elsewhere")
    indexed.mkdir()
    with CatalogWriter.open_writer(tmp_path / "library") as catalog:
        catalog.set_root(1, offline=False, device=1 << 40)  # as if it had been on a drive of its own
    report = vitmae_search("index", indexed, "--json").json
    assert (report["offline"], report["missing"]) == (1, 0)
    assert report["offline_roots"] == [str(indexed)]
    assert f"vitmae-search forget {indexed}" in vitmae_search("index", indexed).out
    assert vitmae_search("status", "--json").json["photos"] == 8


def test_prune_and_forget_say_how_many(vitmae_search: Callable[..., Any], indexed: Path) -> None:
    (indexed / "0.jpg").unlink()
    vitmae_search("index", indexed)
    assert vitmae_search("prune", "--json").json == {"photos": 1, "vectors": 1, "thumbnails": 1}
    assert "0 photos, 0 vectors" in vitmae_search("prune").out
    assert vitmae_search("forget", indexed, "--json").json == {"photos": 7, "vectors": 7, "thumbnails": 7}
    again = vitmae_search("forget", indexed)
    assert again.code == 1
    assert "nothing in" in again.err
    assert (indexed / "1.jpg").exists()


def test_folders_that_are_left_out_are_named(vitmae_search: Callable[..., Any], photos: Path) -> None:
    (photos / "@eaDir").mkdir()
    report = vitmae_search("index", photos, "--embedder", "color_layout", "--json").json
    assert report["left_out"] == [str(photos / "@eaDir")]
    assert f"({photos / '@eaDir'})" in vitmae_search("index", photos).out


def test_a_name_that_is_nearly_too_long(
    vitmae_search: Callable[..., Any], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for stem in ("n" * 251, "ü" * 125):
        long = (photos / "0.jpg").rename(photos / f"{stem}.jpg")
        done = vitmae_search("reconstruct", long, "--json")
        assert done.code == 0, done.err
        name = os.path.basename(done.json["output"])
        assert name.startswith(stem[:100])
        assert name.endswith("-reconstruction.png")
        assert (tmp_path / name).is_file()
        long.rename(photos / "0.jpg")


def test_exclude(vitmae_search: Callable[..., Any], photos: Path) -> None:
    words = ("--embedder", "color_layout", "--exclude", "[0-3].jpg", "--json")
    assert vitmae_search("index", photos, *words).json["found"] == 4


def test_a_folder_that_never_was_is_one_line(vitmae_search: Callable[..., Any], tmp_path: Path) -> None:
    done = vitmae_search("index", tmp_path / "nowhere", "--embedder", "color_layout")
    assert done.code == 1
    assert "nowhere" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert "Traceback" not in done.err


def test_unknown_plugin_and_option(vitmae_search: Callable[..., Any], photos: Path) -> None:
    done = vitmae_search("index", photos, "--embedder", "nope")
    assert done.code == 1
    assert "color_layout" in done.err
    done = vitmae_search("index", photos, "--embedder", "color_layout", "-o", "nope=1")
    assert done.code == 1
    assert "nope" in done.err
    assert vitmae_search("index", photos, "-o", "novalue").code == 2


def test_usage_ends_with_2(vitmae_search: Callable[..., Any]) -> None:
    assert vitmae_search("index").code == 2
    assert vitmae_search("index", "--no-such-option").code == 2


def test_a_gpu_that_is_not_there_is_one_sentence(vitmae_search: Callable[..., Any], photos: Path) -> None:
    done = vitmae_search("index", photos, "--device", "cuda:7")
    assert done.code == 1
    assert "cuda" in done.err


def test_interrupted_ends_with_130_and_keeps_what_was_done(
    tmp_path: Path, write_photo: Callable[[Path, int], Path], vitmae_search: Callable[..., Any], gate: Path
) -> None:
    folder, library = tmp_path / "many", tmp_path / "library"
    for seed in range(30):
        write_photo(folder / f"{seed:04d}.jpg", seed)
    words = ["index", str(folder), "--embedder", "gated", "--batch-size", "1", "--library", str(library)]
    child = subprocess.Popen(
        [sys.executable, "-m", "vitmae_search", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while _photos(vitmae_search) < 3 and time.monotonic() < deadline:
        assert child.poll() is None, child.stderr.read() if child.stderr else ""
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGINT)
    gate.touch()
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert b"Traceback" not in said
    kept = _photos(vitmae_search)
    assert 3 <= kept < 30
    report = vitmae_search("index", folder, "--json").json
    assert report["added"] == 30 - kept, "to run again is to resume"


def _photos(vitmae_search: Callable[..., Any]) -> int:
    photos: int = vitmae_search("status", "--json").json["photos"]
    return photos


def test_files_that_are_no_photos_are_counted_by_suffix(
    vitmae_search: Callable[..., Any], photos: Path
) -> None:
    shutil.copy(photos / "0.jpg", photos / "saved.jpg_large")
    shutil.copy(photos / "1.jpg", photos / "no suffix")
    (photos / "a.psd").write_bytes(b"8BPS" + bytes(50))
    (photos / "b.PSD").write_bytes(b"8BPS" + bytes(50))
    (photos / "film.mp4").write_bytes(bytes(50))
    (photos / "notes").write_bytes(b"words")
    report = vitmae_search("index", photos, "--embedder", "color_layout", "--json").json
    assert (report["found"], report["failed"]) == (10, 0)
    assert report["not_looked_at"] == {"": 1, ".psd": 2, ".mp4": 1}
    said = vitmae_search("index", photos).out
    assert "not looked at: 4 other files (2 .psd, 1 without a suffix, 1 .mp4)" in said


def test_a_folder_without_photos_says_what_is_in_it(
    vitmae_search: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(12):
        (tmp_path / f"photos/a.x{number:02}").write_bytes(b"?")
    said = vitmae_search("index", tmp_path / "photos", "--embedder", "color_layout").out
    assert "not looked at: 12 other files (1 .x00, 1 .x01" in said
    assert ", ...)" in said


def test_a_photo_is_found_by_the_date_in_its_name_or_its_file(
    vitmae_search: Callable[..., Any], photos: Path
) -> None:
    (photos / "0.jpg").rename(photos / "IMG-20150607-WA0001.jpg")
    noon = datetime(2016, 2, 29, 12).timestamp()
    os.utime(photos / "1.jpg", (noon, noon))
    assert vitmae_search("index", photos, "--embedder", "color_layout").code == 0

    def found(day: str) -> list[str]:
        done = vitmae_search("search", photos / "3.jpg", "--after", day, "--before", day, "--json")
        return [Path(hit["path"]).name for hit in done.json["hits"]]

    assert found("2015-06-07") == ["IMG-20150607-WA0001.jpg"]
    assert found("2016-02-29") == ["1.jpg"]
    assert found("2014-01-01") == []
    (photos / "IMG-20150607-WA0001.jpg").rename(photos / "2014-01-01.jpg")
    vitmae_search("index", photos)
    assert (found("2015-06-07"), found("2014-01-01")) == ([], ["2014-01-01.jpg"])
