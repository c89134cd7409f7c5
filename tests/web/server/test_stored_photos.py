"""The app's routes of photos that lie on an object storage: fsspec's own in memory, and Google's."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tests.helpers.google_storage import GoogleStorage
from tests.helpers.object_store import BUCKET, picture
from tests.helpers.videos import check_ranges, motion_photo, write_video
from vitmae_search.library import Library
from vitmae_search.photos import file_system
from vitmae_search.photos.file_system import opened_storage
from vitmae_search.web.server import session
from vitmae_search.web.server.routes import photo_routes

fsspec = pytest.importorskip("fsspec")
COLORS = ((200, 20, 20), (20, 200, 20))


@pytest.fixture
def files() -> Iterator[Any]:
    memory = fsspec.filesystem("memory")
    for i, color in enumerate(COLORS):
        memory.pipe_file(f"/shelf/trip/{i} ü.jpg", picture(color))
    memory.pipe_file("/shelf/trip/old.tif", _tiff())
    yield memory
    memory.rm("/shelf", recursive=True)


@pytest.fixture
def library(tmp_path: Path, files: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    with Library.open(tmp_path / "library", embedder="color_layout") as opened:
        assert opened.index("memory://shelf/trip").added == 3
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    yield session.library()
    session.close_libraries()


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(Starlette(routes=list(photo_routes()))) as client:
        yield client


def _tiff() -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (40, 30), (20, 20, 200)).save(buffer, "TIFF")
    return buffer.getvalue()


def test_bytes_come_through_the_app(client: TestClient, library: Library) -> None:
    found = {photo.path.rsplit("/", 1)[1]: photo.photo_id for photo in library.photos()}
    shown = client.get(f"/photo/{found['0 ü.jpg']}", follow_redirects=False)
    assert (shown.status_code, shown.content) == (200, picture(COLORS[0]))
    assert shown.headers["content-type"] == "image/jpeg"
    assert "default-src 'none'" in shown.headers["content-security-policy"]
    assert shown.headers["x-content-type-options"] == "nosniff"
    saved = client.get(f"/photo/{found['0 ü.jpg']}?download=1")
    assert saved.content == picture(COLORS[0])
    assert saved.headers["content-disposition"] == "attachment; filename*=utf-8''0%20%C3%BC.jpg"
    converted = client.get(f"/photo/{found['old.tif']}")
    assert converted.headers["content-type"] == "image/webp"
    assert client.get(f"/thumb/{found['old.tif']}").headers["content-type"] == "image/jpeg"
    details = client.get(f"/details/{found['0 ü.jpg']}").json()
    assert details["path"] == "memory://shelf/trip/0 ü.jpg"


def test_videos_are_played_and_downloaded_through_the_app(
    client: TestClient, library: Library, files: Any, tmp_path: Path
) -> None:
    pytest.importorskip("av")
    video = write_video(tmp_path / "beach.mp4", ["red", "lime"]).read_bytes()
    for name in ("beach.mp4", "0 ü.mov"):
        files.pipe_file(f"/shelf/trip/{name}", video)
    files.pipe_file("/shelf/trip/1 ü.jpg", motion_photo(video))
    assert library.index("memory://shelf/trip", videos=True).added == 2
    found = {photo.path.rsplit("/", 1)[1]: photo.photo_id for photo in library.photos()}
    frame = found["beach.mp4#t=4.000"]
    with Image.open(BytesIO(client.get(f"/photo/{frame}").content)) as image:
        assert (image.format, image.size) == ("WEBP", (96, 64))
    assert client.get(f"/thumb/{frame}").headers["content-type"] == "image/jpeg"
    saved = client.get(f"/photo/{frame}?download=1")
    assert (saved.content, saved.headers["content-type"]) == (video, "video/mp4")
    assert saved.headers["content-disposition"] == "attachment; filename*=utf-8''beach.mp4"
    for photo_id in (frame, found["0 ü.jpg"], found["1 ü.jpg"]):
        played = client.get(f"/photo/{photo_id}?video=1")
        assert "media-src 'self'" in played.headers["content-security-policy"]
        check_ranges(client, f"/photo/{photo_id}?video=1", video)
    assert client.get(f"/details/{found['1 ü.jpg']}").json()["live"]
    assert not client.get(f"/details/{found['old.tif']}").json()["live"]
    assert client.get(f"/photo/{found['old.tif']}?video=1").status_code == 404
    files.rm("/shelf/trip/beach.mp4")
    gone = client.get(f"/photo/{frame}?video=1")
    assert (gone.status_code, gone.text) == (404, "This photo cannot be shown: there is no such object.")
    assert library.export_links(tmp_path / "links", [library.photo(found["0 ü.jpg"])]) == 1


def test_a_photo_that_went_is_said_to_be_so(client: TestClient, library: Library, files: Any) -> None:
    photo = library.photos()[0]
    files.rm("/shelf/trip/" + photo.path.rsplit("/", 1)[1])
    answer = client.get(f"/photo/{photo.photo_id}")
    assert (answer.status_code, answer.text) == (404, "This photo cannot be shown: there is no such object.")
    assert client.get(f"/thumb/{photo.photo_id}").status_code == 200, "the library has its thumbnail"


def test_photos_on_googles_storage(
    client: TestClient, google_storage: GoogleStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in google_storage.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    opened_storage.cache_clear()
    google_storage.put("app/0 ü#.jpg", picture(COLORS[0]))
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    with Library.open(tmp_path / "library", embedder="color_layout") as opened:
        assert opened.index(f"gs://{BUCKET}/app").added == 1
    (photo,) = session.library().photos()
    shown = client.get(f"/photo/{photo.photo_id}", follow_redirects=False)
    assert (shown.status_code, shown.content) == (200, picture(COLORS[0]))
    assert client.get(f"/thumb/{photo.photo_id}").status_code == 200
    google_storage.delete("app/0 ü#.jpg")
    assert client.get(f"/photo/{photo.photo_id}").text.endswith("there is no such object.")
    session.close_libraries()
    opened_storage.cache_clear()


def test_relocate_and_forget(library: Library, files: Any, tmp_path: Path) -> None:
    ids = {photo.photo_id for photo in library.photos()}
    files.mv("/shelf/trip", "/shelf/journey", recursive=True)
    assert library.relocate("memory://shelf/trip", "memory://shelf/journey") == 3
    report = library.index("memory://shelf/journey")
    assert (report.missing, report.failed, report.found) == (0, 0, 3)
    assert {photo.photo_id for photo in library.photos()} == ids
    assert library.forget("memory://shelf/journey").photos == 3
    assert file_system("memory://shelf/journey/old.tif").read("memory://shelf/journey/old.tif", 1 << 20)
