"""Frames of videos in the app: shown with their time, and played from there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tests.helpers.videos import check_ranges, motion_photo, write_video
from tests.web.conftest import StartServer
from vitmae_search.library import Library
from vitmae_search.records import MovingPart, Photo
from vitmae_search.web.components.photo_facts import file_size, photo_facts
from vitmae_search.web.components.photo_tile import photo_name
from vitmae_search.web.server import session
from vitmae_search.web.server.routes import photo_routes

pytest.importorskip("av")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a library with a video and a photo."""
    write_video(tmp_path / "films" / "beach.mp4", ["red", "lime", "blue"])
    Image.new("RGB", (90, 60), "yellow").save(tmp_path / "films" / "photo.png")
    Image.new("RGB", (96, 64), "blue").save(tmp_path / "films" / "live.jpg")
    write_video(tmp_path / "films" / "live.mov", ["blue", "red"], codec="libx264")
    with Library.open(tmp_path / "library", embedder="color_layout") as library:
        library.index(tmp_path / "films", videos=True)
    return tmp_path / "library"


@pytest.fixture
def second(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Photo]:
    """The video's second frame, in the app's own library."""
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(folder))
    yield sorted((p for p in session.library().photos() if p.frame), key=lambda photo: photo.path)[1]
    session.close_libraries()


def test_the_frame_is_shown_and_the_video_downloaded_and_played(second: Photo) -> None:
    video = Path(second.file).read_bytes()
    with TestClient(Starlette(routes=list(photo_routes()))) as client:
        shown = client.get(f"/photo/{second.photo_id}")
        with Image.open(io.BytesIO(shown.content)) as image:
            assert (image.format, image.size) == ("WEBP", (96, 64))
        download = client.get(f"/photo/{second.photo_id}?download=1")
        assert (download.content, download.headers["content-type"]) == (video, "video/mp4")
        assert "beach.mp4" in download.headers["content-disposition"]
        part = client.get(f"/photo/{second.photo_id}?video=1", headers={"Range": "bytes=0-9"})
        assert (part.status_code, part.content) == (206, video[:10])
        assert "media-src 'self'" in part.headers["content-security-policy"]
        assert client.get(f"/details/{second.photo_id}").json()["facts"][0] == ["File", second.file]
        Path(second.file).unlink()
        assert client.get(f"/photo/{second.photo_id}").status_code == 404


def test_the_moving_part_of_a_photo_is_played(second: Photo) -> None:
    live = next(photo for photo in session.library().photos() if photo.path.endswith("live.jpg"))
    video = Path(live.path).with_suffix(".mov")
    with TestClient(Starlette(routes=list(photo_routes()))) as client:
        details = client.get(f"/details/{live.photo_id}").json()
        assert details["live"]
        assert ["Live", f"with a video of {file_size(video.stat().st_size)}"] in details["facts"]
        shown = client.get(f"/photo/{live.photo_id}?video=1")
        assert (shown.content, shown.headers["content-type"]) == (video.read_bytes(), "video/mp4")
        Path(live.path).write_bytes(motion_photo(video.read_bytes()))
        video.unlink()
        assert client.get(f"/photo/{live.photo_id}?video=1").content == shown.content
        check_ranges(client, f"/photo/{live.photo_id}?video=1", shown.content)
        Image.new("RGB", (96, 64), "blue").save(live.path)
        assert client.get(f"/photo/{live.photo_id}?video=1").status_code == 404
        assert not client.get(f"/details/{live.photo_id}").json()["live"]


def test_a_moving_part_that_cannot_be_read_is_answered_as_gone(
    second: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = next(photo for photo in session.library().photos() if photo.path.endswith("live.jpg"))
    gone = MovingPart(live.path + ".gone", 0, 10)
    monkeypatch.setattr(Library, "moving_part", lambda library, photo_id: gone)
    with TestClient(Starlette(routes=list(photo_routes()))) as client:
        shown = client.get(f"/photo/{live.photo_id}?video=1")
    assert (shown.status_code, "not on disk" in shown.text) == (404, True)


def test_its_name_has_the_time(second: Photo) -> None:
    assert second.frame is not None
    assert photo_name(second) == f"beach.mp4 0:0{int(second.frame.seconds)}"
    assert ("Time", f"0:0{int(second.frame.seconds)} of the video") in photo_facts(second)


@pytest.mark.browser
def test_the_viewer_plays_the_video_from_the_frame(
    folder: Path, start_server: StartServer, chromium: Any
) -> None:
    server = start_server(folder)
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(30_000)
    page.goto(f"{server.url}/browse")
    page.get_by_role("button", name="beach.mp4 0:04", exact=True).click()
    play = page.get_by_role("dialog").get_by_label("Play the video from here")
    play.wait_for()
    assert "video=1#t=4" in play.get_attribute("href")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="photo.png", exact=True).click()
    page.get_by_role("dialog").get_by_text("photo.png").wait_for()
    assert not play.is_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="live.jpg", exact=True).click()
    live = page.get_by_role("dialog").get_by_role("button", name="Play the Live photo")
    live.click()
    moving = page.locator("video.moving")
    page.wait_for_function("video => video.currentTime > 0", arg=moving.element_handle())
    live.click()
    assert moving.count() == 0
