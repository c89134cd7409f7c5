"""Videos in a bucket: the same catalogue as from a disk, by reading parts of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.dying_storage import nobody_listens
from tests.helpers.faulty_proxy import FaultyProxy
from tests.helpers.google_storage import GoogleStorage
from tests.helpers.object_store import BUCKET, OWNER, READER, ObjectStore
from tests.helpers.videos import write_video
from vitmae_search.errors import PhotoTooLarge, StorageUnreachable
from vitmae_search.library import Library
from vitmae_search.photos import stored_file
from vitmae_search.photos.file_system import opened_storage
from vitmae_search.photos.stored_file import open_file

pytest.importorskip("av")


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Videos of several containers, a photo, and a Live photo."""
    folder = tmp_path / "films"
    write_video(folder / "summer" / "beach & sea #1.mp4", ["red", "lime", "blue"])
    write_video(folder / "old.avi", ["navy", "white"])
    write_video(folder / "web.mkv", ["teal", "orange"], codec="libx264")
    write_video(folder / "IMG_1.MOV", ["pink", "black"])
    Image.new("RGB", (90, 60), "yellow").save(folder / "img_1.jpg")
    return folder


@pytest.fixture
def storage(
    request: pytest.FixtureRequest, films: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, ObjectStore | GoogleStorage]]:
    """The same files in a bucket of each kind: their folder's address, and the server."""
    scheme = getattr(request, "param", "s3")
    server = request.getfixturevalue("object_store" if scheme == "s3" else "google_storage")
    for name, value in (server.environment(OWNER) if scheme == "s3" else server.environment()).items():
        monkeypatch.setenv(name, value)
    if scheme == "gs":
        import fsspec

        monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    opened_storage.cache_clear()
    for file in sorted(films.rglob("*.*")):
        server.put(f"open/films/{file.relative_to(films)}", file.read_bytes())
    yield f"{scheme}://{BUCKET}/open/films", server
    server.delete("open/films")
    opened_storage.cache_clear()


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library", embedder="color_layout") as opened:
        yield opened


def contents(library: Library, where: str) -> dict[str, tuple[object, ...]]:
    """What the catalogue has of each photo of a folder."""
    found = library.embeddings()
    vectors = dict(zip(found.photo_ids.tolist(), found.vectors.tolist(), strict=True))
    return {
        photo.path.removeprefix(where): (photo.digest, photo.size, photo.metadata, vectors[photo.photo_id])
        for photo in library.photos()
    }


@pytest.mark.parametrize("storage", ["s3", "gs"], indirect=True)
def test_the_catalogue_is_the_same_as_from_a_disk(
    storage: tuple[str, ObjectStore | GoogleStorage], library: Library, films: Path, tmp_path: Path
) -> None:
    where, server = storage
    report = library.index(where, videos=True)
    with Library.open(tmp_path / "of disk", embedder="color_layout") as of_disk:
        on_disk = of_disk.index(films, videos=True)
        assert contents(library, where) == contents(of_disk, str(films))
    assert (report.added, report.failed, report.not_looked_at) == (on_disk.added, 0, {".mov": 1})
    again = library.index(where)  # it goes on by itself
    assert (again.unchanged, again.missing) == (report.added, 0)
    hit = library.search(Image.new("RGB", (64, 64), "lime"), k=1).hits[0]
    assert hit.photo.file == f"{where}/summer/beach & sea #1.mp4"
    assert library.search(hit.photo.path, k=1).known
    server.move("open/films/old.avi", "open/films/older.avi")
    server.delete("open/films/web.mkv")
    changed = library.index(where)
    assert (changed.moved, changed.added, changed.missing, changed.failed) == (2, 0, 2, 0)


def test_without_videos_they_are_left_alone(storage: tuple[str, ObjectStore], library: Library) -> None:
    report = library.index(storage[0])
    assert (report.found, report.not_looked_at) == (1, {".mp4": 1, ".avi": 1, ".mkv": 1, ".mov": 1})


@pytest.mark.parametrize("storage", ["s3", "gs"], indirect=True)
def test_the_video_of_a_live_photo_is_found(
    storage: tuple[str, ObjectStore | GoogleStorage], library: Library
) -> None:
    where, server = storage
    server.move("open/films/IMG_1.MOV", "open/films/img_1.MOV")
    library.index(where, videos=True)
    live = next(photo for photo in library.photos() if photo.frame is None)
    part = library.moving_part(live.photo_id)
    assert part is not None
    assert (part.file, part.offset) == (f"{where}/img_1.MOV", 0)
    assert part.length == len(open_file(part.file).read())


def test_what_goes_wrong_costs_its_video_alone(
    storage: tuple[str, ObjectStore], library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, server = storage
    library.index(where, videos=True)
    known = len(library.photos())
    server.put("open/films/broken.mp4", b"\0\0\0\x18ftypisom" + b"\xff" * 5000)
    with FaultyProxy(server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        opened_storage.cache_clear()
        proxy.rule = lambda path, asked: "denied" if "old.avi" in path else ""
        report = library.index(where, rescan=True)
        reasons = {one.path.removeprefix(where): one.reason for one in report.failures}
        assert reasons.keys() == {"/broken.mp4", "/old.avi"}
        assert reasons["/old.avi"] == "access is denied"
        assert "damaged video" in reasons["/broken.mp4"]
        assert (report.missing, len(library.photos())) == (0, known)
        monkeypatch.setattr(stored_file, "_CACHE", stored_file._BlockCache())
        proxy.rule = lambda path, asked: "short" if "web.mkv" in path else ""
        cut = {one.path.removeprefix(where): one.reason for one in library.index(where, rescan=True).failures}
        assert "bytes of it came; index again" in cut.pop("/web.mkv")
        assert cut.keys() == {"/broken.mp4"}
        proxy.rule = lambda path, asked: "reset" if "old.avi" in path and asked == 0 else ""
        assert library.index(where).failed == 1


def test_a_storage_that_dies_ends_the_run(
    storage: tuple[str, ObjectStore], library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, _ = storage
    library.index(where)
    seen: list[str] = []

    def lose_it(progress: object) -> None:
        if str(getattr(progress, "current", "")).endswith(".avi") and not seen:
            seen.append(monkeypatch.setenv("AWS_ENDPOINT_URL", nobody_listens()) or "lost")
            opened_storage.cache_clear()

    with pytest.raises(StorageUnreachable, match="run the same command again to go on"):
        library.index(where, videos=True, on_progress=lose_it)
    assert seen
    assert library.status().missing == 0


def test_parts_are_read_as_of_a_file(
    storage: tuple[str, ObjectStore], films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_file, "_BLOCK", 1000)
    monkeypatch.setattr(stored_file, "_CACHE", stored_file._BlockCache())
    name = "summer/beach & sea #1.mp4"
    data = (films / name).read_bytes()
    with open_file(f"{storage[0]}/{name}") as file:
        assert file.read() == data
        assert (file.seek(-700, 2), file.read(100), file.read()) == (
            len(data) - 700,
            data[-700:-600],
            data[-600:],
        )
        assert file.read(1) == b""
        assert (file.seek(999), file.read(2)) == (999, data[999:1001])
    with open_file(f"{storage[0]}/{name}", 3000) as file, pytest.raises(PhotoTooLarge) as caught:
        file.read()
    assert str(caught.value).startswith(f"{storage[0]}/{name}: more than ")


def test_a_reader_may_not_see_all(
    storage: tuple[str, ObjectStore], library: Library, films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, server = storage
    server.put("closed/old.avi", (films / "old.avi").read_bytes())
    for name, value in server.environment(READER).items():
        monkeypatch.setenv(name, value)
    opened_storage.cache_clear()
    report = library.index(f"s3://{BUCKET}/closed", videos=True)
    assert [failure.reason for failure in report.failures] == ["access is denied"]
    assert library.index(where, videos=True).failures == ()
    server.delete("closed")
