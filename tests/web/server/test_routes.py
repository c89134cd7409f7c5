"""`/thumb/{id}` and `/photo/{id}` over a real library."""

from __future__ import annotations

import base64
import io
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starlette.applications import Starlette
from starlette.testclient import TestClient

from vitmae_search.latest_values import LatestValues
from vitmae_search.library import Library
from vitmae_search.records import Photo
from vitmae_search.web.components import listed_digests
from vitmae_search.web.components.photo_tile import photo_tiles
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


def test_the_thumbnail_of_a_listed_photo_takes_no_query(
    opened: Library, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pages of other tests may have listed the same photos.
    monkeypatch.setattr(listed_digests, "_digests", LatestValues(lambda digest: 1, 10))
    photo, other = named(opened, "astronaut.jpg"), named(opened, "chelsea.jpg")
    asked: list[int] = []
    find = Library.photo
    monkeypatch.setattr(
        Library, "photo", lambda library, number: asked.append(number) or find(library, number)
    )
    address = f"/thumb/{photo.photo_id}?v={photo.digest[:12]}"
    first = client.get(address)
    assert asked == [photo.photo_id]
    (tile,) = photo_tiles([photo])
    assert f"/{tile['src']}" == address
    again = client.get(address)
    assert asked == [photo.photo_id]
    assert (again.content, again.headers) == (first.content, first.headers)
    assert client.get(address, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    for elsewhere in (f"/thumb/{photo.photo_id}", f"/thumb/{photo.photo_id}?v={other.digest[:12]}"):
        assert client.get(elsewhere).content == first.content
    assert asked == [photo.photo_id] * 3
    opened.thumbnails.delete(photo.digest)
    assert client.get(address).status_code == 200
    assert asked == [photo.photo_id] * 4


def test_a_photo_is_the_file_itself(opened: Library, client: TestClient) -> None:
    photo = named(opened, "astronaut.jpg")
    answer = client.get(f"/photo/{photo.photo_id}")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content == Path(photo.path).read_bytes()


def test_a_download_is_the_file_itself_whatever_its_name(
    opened_copy: Library, client: TestClient, tmp_path: Path, small: Any
) -> None:
    (tmp_path / "more").mkdir()
    odd = os.fsdecode(b'caf\xe9 "x"; \n.tif')  # no UTF-8, and what ends a header's value
    data = (small.photos / "tiff.tif").read_bytes() + b"another content"
    (tmp_path / "more" / odd).write_bytes(data)
    opened_copy.index([tmp_path / "more"])
    answer = client.get(f"/photo/{named(opened_copy, odd).photo_id}?download=1")
    assert answer.content == data
    assert answer.headers["content-type"] == "image/tiff"
    assert answer.headers["content-disposition"].startswith("attachment; filename*=utf-8''caf%EF%BF%BD%20")


def test_a_picture_is_uploaded_by_a_post_of_a_limited_size(
    client: TestClient, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (small.photos / "coffee.jpg").read_bytes()
    answer = client.post("/upload?name=my%20cup.jpg", content=data)
    kept = session.uploads.get(answer.json()["token"])
    assert kept is not None
    assert (kept.name, kept.data) == ("my cup.jpg", data)
    assert client.post("/upload").status_code == 400
    assert client.get("/upload").status_code == 405
    monkeypatch.setattr("streamlit.get_option", lambda _name: 1)
    assert client.post("/upload", content=b"x" * (2**20 + 1)).status_code == 413


def test_details_are_the_path_and_the_facts(opened: Library, client: TestClient) -> None:
    photo = named(opened, "astronaut.jpg")
    found = client.get(f"/details/{photo.photo_id}").json()
    assert found["path"] == photo.path
    assert dict(found["facts"])["File"] == photo.path
    assert client.get("/details/999999").status_code == 404


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


# How a photo is turned ------------------------------------------------------------------------------------

XMP = b"""<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
 tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""


def exif(orientation: int, *, kind: int = 3, count: int = 1) -> bytes:
    """EXIF with an orientation alone. `kind` is 3 for 16 bits, 4 for 32 bits."""
    field = struct.pack("<H2x" if kind == 3 else "<I", orientation)
    return b"II*\0" + struct.pack("<IHHHI", 8, 1, 0x0112, kind, count) + field + bytes(4)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def jpeg_segment(body: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def turned_files(image: Image.Image) -> dict[str, bytes]:
    """A picture in files that say in many ways how it is turned, by their names."""

    def saved(image_format: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, image_format, **options)
        return buffer.getvalue()

    jpeg, png = saved("JPEG", quality=95), saved("PNG")

    def jpeg_with(*bodies: bytes) -> bytes:
        return jpeg[:20] + b"".join(map(jpeg_segment, bodies)) + jpeg[20:]

    xmp = b"http://ns.adobe.com/xap/1.0/\0" + XMP
    files = {f"exif {i}.jpg": jpeg_with(b"Exif\0\0" + exif(i)) for i in range(10)}
    files |= {f"exif {i}.avif": saved("AVIF", exif=exif(i)) for i in range(1, 9)}
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    other = [image.transpose(Image.Transpose.ROTATE_180), image]
    moving = {"save_all": True, "append_images": other, "duration": 60_000}
    return files | {
        "xmp.jpg": jpeg_with(xmp),
        "xmp 6, exif 3.jpg": jpeg_with(xmp, b"Exif\0\0" + exif(3)),
        "exif 6, then 3.jpg": jpeg_with(b"Exif\0\0" + exif(6), b"Exif\0\0" + exif(3)),
        "exif of 32 bits.jpg": jpeg_with(b"Exif\0\0" + exif(6, kind=4)),
        "exif of two numbers.jpg": jpeg_with(b"Exif\0\0" + exif(6, count=2)),
        "exif with an odd header.jpg": jpeg_with(b"Exif\0\xff" + exif(6)),
        "exif.webp": saved("WEBP", lossless=True, exif=exif(6)),
        "xmp.webp": saved("WEBP", lossless=True, xmp=XMP),
        "xmp.avif": saved("AVIF", xmp=XMP),
        "exif before.png": png[:33] + png_chunk(b"eXIf", exif(6)) + png[33:],
        "exif after.png": png[:-12] + png_chunk(b"eXIf", exif(6)) + png[-12:],
        "exif with a header.png": png[:33] + png_chunk(b"eXIf", b"Exif\0\0" + exif(6)) + png[33:],
        "xmp.png": saved("PNG", pnginfo=text),
        "moving.png": saved("PNG", **moving),
        "moving with another still.png": saved("PNG", **moving, default_image=True),
        "plain.png": png,
        "plain.gif": saved("GIF"),
        "plain.bmp": saved("BMP"),
        "exif.tif": saved("TIFF", exif=exif(6)),
    }


def colors(image: Image.Image) -> tuple[str, ...]:
    """The names of the colors of an image's quarters, and whether it stands or lies."""
    names = {"red": (230, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 230), "yellow": (230, 230, 20)}
    small = image.convert("RGB").resize((2, 2), Image.Resampling.BOX)

    def nearest(pixel: Any) -> str:
        return min(names, key=lambda name: sum(abs(a - b) for a, b in zip(names[name], pixel, strict=True)))

    quarters = [nearest(small.getpixel((x, y))) for y in (0, 1) for x in (0, 1)]
    return ("standing" if image.height > image.width else "lying", *quarters)


@pytest.fixture
def turned(tmp_path: Path) -> Iterator[dict[str, int]]:
    """Ids of photos by the names of their files, in a library that is the app's."""
    image = Image.new("RGB", (96, 48), (230, 20, 20))
    image.paste((20, 200, 20), (48, 0, 96, 24))
    image.paste((20, 20, 230), (0, 24, 48, 48))
    image.paste((230, 230, 20), (48, 24, 96, 48))
    folder = tmp_path / "turned"
    folder.mkdir()
    for name, data in turned_files(image).items():
        (folder / name).write_bytes(data)
    with Library.open(tmp_path / "library", embedder="color_layout") as library:
        report = library.index([folder])
        assert report.failures == ()
        yield {os.path.basename(photo.path): photo.photo_id for photo in library.photos()}


@pytest.mark.browser
def test_a_browser_shows_each_photo_as_its_thumbnail(
    tmp_path: Path, turned: dict[str, int], chromium: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Browsers turn some files by other rules than the decoder, or not at all."""
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    page = chromium.new_page()

    def shown(address: str) -> tuple[str, ...]:
        answer = client.get(address)
        assert answer.status_code == 200
        kind = answer.headers["content-type"]
        data = f"data:{kind};base64,{base64.b64encode(answer.content).decode()}"
        page.set_content(f"<body style='margin:0'><img src='{data}' style='display:block'>")
        page.locator("img").evaluate("image => image.decode()")
        return colors(Image.open(io.BytesIO(page.locator("img").screenshot())))

    with TestClient(Starlette(routes=list(photo_routes()))) as client:
        views = {
            name: (shown(f"/photo/{number}"), shown(f"/thumb/{number}")) for name, number in turned.items()
        }
    session.close_libraries()
    page.close()
    assert {name: pair for name, pair in views.items() if pair[0] != pair[1]} == {}
    standing = {name for name, (large, _) in views.items() if large[0] == "standing"}
    assert {"exif 6.jpg", "xmp.jpg", "exif.webp", "xmp.webp", "exif after.png", "exif.tif"} <= standing
    assert views["moving with another still.png"][0] == ("lying", "red", "green", "blue", "yellow")


def test_what_browsers_turn_alike_is_served_as_it_is(
    tmp_path: Path, turned: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most photos that are turned are JPEGs with EXIF: none of them is encoded again."""
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    with TestClient(Starlette(routes=list(photo_routes()))) as client:
        kinds = {
            name: client.get(f"/photo/{number}").headers["content-type"] for name, number in turned.items()
        }
    session.close_libraries()
    assert {kinds[f"exif {i}.jpg"] for i in range(10)} == {"image/jpeg"}
    assert kinds["plain.png"] == kinds["moving.png"] == "image/png"
    assert kinds["plain.gif"] == "image/gif"
    assert kinds["exif 1.avif"] == "image/avif"
    assert {kinds[name] for name in kinds if "xmp" in name and "3" not in name} == {"image/webp"}


@pytest.mark.parametrize(
    "number", ["9" * 5000, "9" * 19, "-1", "1.0", "0x1", "١", "1%00", "%2e%2e", "1e3", "99999999"]
)
def test_what_is_no_photos_number_is_not_found(opened: Library, client: TestClient, number: str) -> None:
    for kind in ("photo", "thumb"):
        assert client.get(f"/{kind}/{number}").status_code == 404
