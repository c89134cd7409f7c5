"""Videos in a library: found by their frames, kept up to date, and nothing lost where they are damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.videos import write_video
from vitmae_search.cli.main import run
from vitmae_search.errors import LibraryError, PhotoError, UnreadablePhoto, UnsupportedPhoto
from vitmae_search.library import Library
from vitmae_search.photos import PhotoDecoder, digest, read_photo, video
from vitmae_search.photos.decode_pool import DecodePool
from vitmae_search.photos.worker_process import LocalWorker
from vitmae_search.records import Photo, SearchFilter, VideoFrame

pytest.importorskip("av")


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    write_video(folder / "summer" / "beach.mp4", ["red", "lime", "blue"])
    Image.new("RGB", (90, 60), "yellow").save(folder / "photo.png")
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library", embedder="color_layout") as opened:
        yield opened


def frames(library: Library) -> dict[str, Photo]:
    """The photos that are frames of videos, by name."""
    return {os.path.basename(photo.path): photo for photo in library.photos() if photo.frame}


def test_a_video_is_found_by_its_frames(library: Library, films: Path) -> None:
    report = library.index(films, videos=True)
    assert (report.found, report.added, report.failed, report.not_looked_at) == (4, 4, 0, {})
    hit = library.search(Image.new("RGB", (64, 64), "lime"), k=1).hits[0]
    frame = hit.photo.frame
    assert frame is not None
    assert frame.video == str(films / "summer" / "beach.mp4") == hit.photo.file
    assert 4 <= frame.seconds < 6.5
    assert library.similar(hit.photo.photo_id, k=9).hits
    assert library.search(hit.photo.path, k=1).known
    with pytest.raises(UnsupportedPhoto, match="is a video; name a photo, or a frame"):
        library.search(frame.video)
    with pytest.raises(UnreadablePhoto, match="No such file"):
        library.search(films / "absent.mp4")
    assert library.count_photos(SearchFilter(under=str(films / "summer"))) == 3
    assert library.thumbnail(hit.photo.photo_id)
    assert library.export_links(library.folder.parent / "links", list(frames(library).values())) == 1


def test_videos_are_left_alone_unless_asked_for(library: Library, films: Path) -> None:
    report = library.index(films)
    assert (report.found, report.not_looked_at) == (1, {".mp4": 1})
    library.index(films, videos=True)
    again = library.index(films)  # it goes on by itself
    assert (again.found, again.unchanged, again.missing) == (4, 4, 0)
    write_video(films / "second.mp4", ["teal"])
    assert library.index(films).added == 1


def test_a_changed_a_moved_and_a_deleted_video(library: Library, films: Path) -> None:
    library.index(films, videos=True)
    beach = films / "summer" / "beach.mp4"
    write_video(beach, ["red", "black"])
    changed = library.index(films)
    assert (changed.unchanged + changed.updated + changed.added, changed.missing) == (3, 1)
    assert len(frames(library)) == 2
    beach.rename(films / "sea.mp4")
    moved = library.index(films)
    assert (moved.moved, moved.added, moved.missing) == (2, 0, 0)
    assert {photo.file for photo in frames(library).values()} == {str(films / "sea.mp4")}
    (films / "sea.mp4").unlink()
    assert library.index(films).missing == 2
    assert not frames(library)


def test_another_model_embeds_the_same_frames(library: Library, films: Path, tmp_path: Path) -> None:
    library.index(films, videos=True)
    with Library.open(tmp_path / "library", embedder="color_layout", options={"histogram": "false"}) as other:
        report = other.index(films)
        assert (report.added, report.missing) == (4, 0)
        assert len(frames(other)) == 3


def test_a_damaged_video_costs_itself_alone(library: Library, films: Path) -> None:
    (films / "broken.mp4").write_bytes(b"\0\0\0\x18ftypisom" + b"\xff" * 5000)
    report = library.index(films, videos=True)
    assert (report.added, report.failed) == (4, 1)
    assert report.failures[0].path == str(films / "broken.mp4")
    assert "damaged video" in report.failures[0].reason
    again = library.index(films)
    assert (again.unchanged, again.failed) == (4, 1)
    beach = films / "summer" / "beach.mp4"
    beach.write_bytes(beach.read_bytes()[:200])
    damaged = library.index(films)
    assert (damaged.failed, damaged.missing) == (2, 0)
    assert len(frames(library)) == 3  # they keep their vectors


def test_a_missing_package_is_named(library: Library, films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitmae_search.library.library.can_be_decoded", lambda: False)
    with pytest.raises(LibraryError, match=r"pip install 'vitmae-search\[video\]'"):
        library.index(films, videos=True)
    assert library.index(films).found == 1


def test_rescan_finds_the_same_frames(library: Library, films: Path) -> None:
    library.index(films, videos=True)
    before = set(frames(library))
    report = library.index(films, rescan=True)
    assert (report.unchanged, report.missing, set(frames(library))) == (4, 0, before)
    assert before == {
        os.path.basename(VideoFrame("beach.mp4", seconds).path)
        for seconds in video.find_frames(str(films / "summer" / "beach.mp4"))
    }


def test_a_run_that_ends_in_a_video_is_gone_on_with(library: Library, films: Path, tmp_path: Path) -> None:
    """Which frames a video has is known only to the run that looked through it."""
    write_video(films / "summer" / "beach.mp4", ["red", "lime", "blue", "black", "white"])
    done = [0]
    with Library.open(tmp_path / "library", embedder="color_layout", batch_size=1) as small:
        report = small.index(
            films, videos=True, on_progress=lambda now: done.append(now.done), cancelled=lambda: max(done) > 3
        )
    assert report.interrupted
    recorded = len(library.photos())
    assert 1 <= recorded < 6
    assert library.status().failed
    again = library.index(films)
    assert (again.unchanged, again.added, again.failed) == (recorded, 6 - recorded, 0)
    assert (len(frames(library)), library.status().failed) == (5, 0)


def test_the_frames_that_failed_of_a_video_are_tried_again(
    library: Library, films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PhotoDecoder, "read", _fail_at_four)
    monkeypatch.setattr(DecodePool, "worker", lambda pool: LocalWorker(pool._make_handler()))
    failed = library.index(films, videos=True)
    assert (failed.added, failed.failed) == (3, 1)
    monkeypatch.undo()
    assert library.index(films).added == 1
    write_video(films / "summer" / "beach.mp4", ["red"])
    report = library.index(films)
    assert (len(frames(library)), report.failed, library.status().failed) == (1, 0, 0)


def _fail_at_four(decoder: PhotoDecoder, path: str) -> tuple[str, bytes] | PhotoError:
    if "#t=4" in path:
        return UnreadablePhoto(path, "the drive has an error")
    data = read_photo(path)
    return digest(data), data


def test_the_command_line_shows_the_time(films: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = ["--library", str(films.parent / "library")]
    assert run(["index", str(films), "--videos", "--embedder", "color_layout", "--json", *place]) == 0
    capfd.readouterr()
    assert run(["list", *place]) == 0
    beach = str(films / "summer" / "beach.mp4")
    assert f"{beach} at 0:00" in capfd.readouterr().out
    assert run(["list", "--json", *place]) == 0
    listed = json.loads(capfd.readouterr().out)["photos"]
    assert {photo["video"] for photo in listed} == {beach, None}
    assert 0.0 in [photo["seconds"] for photo in listed]
