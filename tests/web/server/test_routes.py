"""`/thumb/{id}` and `/photo/{id}` over a real library."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from vitmae_search.library import Library
from vitmae_search.records import Photo
from vitmae_search.web.server import session
from vitmae_search.web.server.routes import photo_routes


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(Starlette(routes=list(photo_routes()))) as client:
        yield client


def named(library: Library, name: str) -> Photo:
    return next(photo for photo in library.photos() if os.path.basename(photo.path) == name)


def test_a_thumbnail_is_a_small_jpeg(opened: Library, client: TestClient) -> None:
    answer = client.get(f"/thumb/{named(opened, 'astronaut.jpg').photo_id}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.format == "JPEG"
        assert max(image.size) <= 512


def test_a_photo_is_the_file_itself(opened: Library, client: TestClient) -> None:
    photo = named(opened, "astronaut.jpg")
    answer = client.get(f"/photo/{photo.photo_id}")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content == Path(photo.path).read_bytes()


def test_a_format_that_browsers_cannot_show_is_converted(opened: Library, client: TestClient) -> None:
    photo = named(opened, "tiff.tif")
    answer = client.get(f"/photo/{photo.photo_id}")
    assert answer.headers["content-type"] == "image/webp"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == (photo.metadata.width, photo.metadata.height)


@pytest.mark.parametrize("kind", ["photo", "thumb"])
def test_pictures_are_inert_and_for_the_app_alone(opened: Library, client: TestClient, kind: str) -> None:
    headers = client.get(f"/{kind}/1").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "sandbox" in headers["content-security-policy"]
    assert headers["cache-control"].startswith("private")


@pytest.mark.parametrize("kind", ["photo", "thumb"])
def test_a_browser_revalidates_what_it_has_cached(opened: Library, client: TestClient, kind: str) -> None:
    photo = named(opened, "chelsea.jpg")
    address = f"/{kind}/{photo.photo_id}"
    first = client.get(address)
    assert "no-cache" in first.headers["cache-control"]
    again = client.get(address, headers={"If-None-Match": f'"other", {first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(address, headers={"If-None-Match": '"other"'}).status_code == 200
    assert "immutable" in client.get(f"{address}?v={photo.digest[:12]}").headers["cache-control"]
    for stale in ("", photo.digest[:2], "f" * 12):
        assert "immutable" not in client.get(f"{address}?v={stale}").headers["cache-control"]


@pytest.mark.parametrize("kind", ["photo", "thumb"])
@pytest.mark.parametrize("number", ["999999", "0", "99999999999999999999999999"])
def test_an_unknown_number_is_not_found(opened: Library, client: TestClient, kind: str, number: str) -> None:
    answer = client.get(f"/{kind}/{number}")
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text == "There is no such photo in this library."


@pytest.mark.parametrize(
    "path", ["/photo/1.jpg", "/photo/-1", "/photo/..%2f1", "/photo//etc/passwd", "/thumb/"]
)
def test_only_numeric_ids_are_routed(opened: Library, client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("kind", ["photo", "thumb"])
def test_an_empty_library_has_no_photos(empty: Path, client: TestClient, kind: str) -> None:
    assert client.get(f"/{kind}/1").status_code == 404
    assert not empty.exists()


def test_a_file_that_is_gone_is_a_sentence(
    tmp_path: Path, real_photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch, client: TestClient
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(real_photos["china"], folder / "gone.jpg")
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    with Library.open(tmp_path / "library", embedder="color_layout") as library:
        library.index([folder])
    (folder / "gone.jpg").unlink()
    try:
        answer = client.get("/photo/1")
        assert answer.status_code == 404
        assert "not on disk any more" in answer.text
        assert str(tmp_path) not in answer.text
        assert client.get("/thumb/1").status_code == 200  # kept since it was indexed
    finally:
        session.close_libraries()
