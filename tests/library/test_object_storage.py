"""Photos on object storage, read from a real S3 server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers.dying_storage import index_until_killed, nobody_listens
from tests.helpers.faulty_proxy import FaultyProxy
from tests.helpers.object_store import BUCKET, OWNER, READER, STRANGER, ObjectStore, picture
from vitmae_search import Library
from vitmae_search.cli.main import run
from vitmae_search.errors import LibraryError, StorageUnreachable
from vitmae_search.indexing import stored_files
from vitmae_search.photos import object_storage, read_photo
from vitmae_search.photos.file_system import opened_storage
from vitmae_search.photos.object_storage import ObjectStorage
from vitmae_search.records import SearchFilter

SignIn = Callable[..., None]


@pytest.fixture
def sign_in(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[SignIn]:
    """Be somebody, at the server or at another endpoint, as a new process would."""

    def change(who: tuple[str, str] = OWNER, **others: str) -> None:
        for name, value in {**object_store.environment(who), **others}.items():
            monkeypatch.setenv(name, value)
        forget_connections()

    change()
    yield change
    forget_connections()


def forget_connections() -> None:
    opened_storage.cache_clear()


@pytest.fixture
def folder(object_store: ObjectStore, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a folder of this test's own, with four photos and other things."""
    name = f"open/{request.node.name}"
    fill(object_store, name)
    yield name
    with contextlib.suppress(FileNotFoundError):
        object_store.delete(name)


def fill(object_store: ObjectStore, name: str) -> None:
    for i, place in enumerate(("a.jpg", "b.JPG", "trip/c.jpg", "trip/no suffix & ünusual? #1")):
        object_store.put(f"{name}/{place}", (60 * i, 200 - 40 * i, 90))
    object_store.put(f"{name}/.hidden/x.jpg", (9, 9, 9))
    object_store.put(f"{name}/@eaDir/x.jpg", (9, 9, 9))
    object_store.put(f"{name}/film.mp4", b"film")
    object_store.put(f"{name}/notes", b"no photo")
    object_store.put(f"{name}/empty.jpg", b"")


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library", embedder="color_layout", batch_size=4) as opened:
        yield opened


@pytest.fixture
def unused_endpoint() -> str:
    return nobody_listens()


def address(folder: str) -> str:
    return f"s3://{BUCKET}/{folder}"


def test_index_changes_moves_and_deletions(
    sign_in: SignIn, object_store: ObjectStore, folder: str, library: Library
) -> None:
    where = address(folder)
    first = library.index(where + "/")
    assert (first.added, first.failed, first.problems) == (4, 1, ())
    assert first.not_looked_at == {"": 1, ".mp4": 1}
    assert first.left_out == (f"{where}/@eaDir",)
    again = library.index(where)
    assert (again.unchanged, again.added, again.failed) == (4, 0, 1)
    ids = {photo.path: photo.photo_id for photo in library.photos()}
    assert f"{where}/trip/no suffix & ünusual? #1" in ids

    object_store.move(f"{folder}/a.jpg", f"{folder}/trip/moved.jpg")
    object_store.put(f"{folder}/b.JPG", (1, 2, 250))
    object_store.delete(f"{folder}/trip/c.jpg")
    changed = library.index(where)
    assert (changed.moved, changed.updated, changed.missing, changed.unchanged) == (1, 1, 1, 1)
    now = {photo.path: photo.photo_id for photo in library.photos()}
    assert now[f"{where}/trip/moved.jpg"] == ids[f"{where}/a.jpg"]
    assert library.search(f"{where}/trip/moved.jpg").hits[0].photo.path.endswith("/moved.jpg")
    assert library.similar(now[f"{where}/b.JPG"]).hits


def test_same_size_and_name_but_another_content_is_seen(
    sign_in: SignIn, object_store: ObjectStore, folder: str, library: Library
) -> None:
    """The date counts seconds, so it is the ETag that differs."""
    data = picture((200, 10, 10))
    object_store.put(f"{folder}/a.jpg", data)
    library.index(address(folder))
    object_store.put(f"{folder}/a.jpg", data[:-3] + b"\x00" + data[-2:])
    assert library.index(address(folder)).updated == 1


def test_filters_folders_and_exclusion(
    sign_in: SignIn, folder: str, library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    where = address(folder)
    report = library.index(where, exclude=["trip/", "b.*"])
    assert report.added == 1
    library.index(where)
    assert len(library.photos(SearchFilter(under=f"{where}/trip/"))) == 2
    words = ["search", f"{where}/a.jpg", "--library", str(library.folder), "--under", f"{where}/trip/"]
    assert run([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {hit["path"].rsplit("/", 2)[1] for hit in found["hits"]} == {"trip"}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("stranger", "access is denied"),
        ("secret", "the secret key is not the one of the access key"),
        ("endpoint", "its storage cannot be reached"),
    ],
)
def test_what_cannot_be_listed_is_never_gone(
    what: str, said: str, sign_in: SignIn, folder: str, library: Library, unused_endpoint: str
) -> None:
    where = address(folder)
    library.index(where)
    if what == "stranger":
        sign_in(STRANGER)
    elif what == "secret":
        sign_in((OWNER[0], "secret-that-is-wrong"))
    else:
        sign_in(AWS_ENDPOINT_URL=unused_endpoint)
    report = library.index(where)
    assert (report.missing, report.unchanged, report.offline) == (0, 0, (where,))
    assert [problem.reason for problem in report.problems] == [said]
    assert library.status().missing == 0
    assert library.thumbnail(library.photos()[0].photo_id), "its thumbnail is here"
    sign_in()
    assert library.index(where).unchanged == 4


def test_a_bucket_of_the_same_name_elsewhere_is_another_one(
    sign_in: SignIn, object_store: ObjectStore, folder: str, library: Library
) -> None:
    """Under another name of the host the server is another endpoint, and with other photos another bucket."""
    where = address(folder)
    library.index(where)
    sign_in(AWS_ENDPOINT_URL=object_store.endpoint.replace("127.0.0.1", "localhost"))
    report = library.index(where)
    assert (report.unchanged, report.offline) == (4, ()), "the same photos are there"
    object_store.delete(folder)
    sign_in()
    report = library.index(where)
    assert (report.missing, report.offline) == (0, (where,))
    sign_in(AWS_ENDPOINT_URL=object_store.endpoint.replace("127.0.0.1", "localhost"))
    assert library.index(where).missing == 4, "this is the bucket that was emptied"


def test_a_listing_that_ends_early_loses_nothing(
    sign_in: SignIn, object_store: ObjectStore, folder: str, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = address(folder)
    library.index(where)
    object_store.delete(f"{folder}/a.jpg")
    pages = ObjectStorage._pages_of_s3

    def first_page_alone(storage: ObjectStorage, bucket: str, prefix: str, most: int) -> Iterator[Any]:
        yield next(pages(storage, bucket, prefix, min(most, 5)))
        raise ConnectionResetError

    monkeypatch.setattr(ObjectStorage, "_pages_of_s3", first_page_alone)
    report = library.index(where)
    assert [problem.reason for problem in report.problems] == ["its storage cannot be reached"]
    assert (report.missing, report.offline) == (0, ())
    monkeypatch.undo()
    sign_in()
    report = library.index(where)
    assert (report.missing, report.unchanged) == (1, 3)


@pytest.fixture
def proxy(object_store: ObjectStore, sign_in: SignIn) -> Iterator[FaultyProxy]:
    """Stands before the server, and answers wrongly where a test says so."""
    with FaultyProxy(object_store.endpoint) as running:
        sign_in(AWS_ENDPOINT_URL=running.endpoint)
        yield running


@pytest.mark.parametrize("fault", ["slow_down", "cut", "reset", "slow"])
def test_what_fails_once_is_asked_again(
    fault: str, proxy: FaultyProxy, folder: str, library: Library
) -> None:
    proxy.rule = lambda path, asked: fault if asked == 0 else ""
    report = library.index(address(folder))
    assert (report.added, report.failed, report.problems) == (4, 1, ()), "the empty object alone fails"
    assert proxy.faults


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("error", "the storage has an error of its own; try again later"),
        ("slow_down", "the storage asks for fewer requests; try again later"),
        ("cut", "the storage's answer ends too early; try again later"),
        ("reset", "its storage cannot be reached"),
        ("short", "bytes came; index again"),
        ("denied", "access is denied"),
    ],
)
def test_one_object_that_always_fails_costs_itself_alone(
    fault: str, said: str, proxy: FaultyProxy, folder: str, library: Library
) -> None:
    """Else it would end every run before the photos behind it. Its earlier vector is kept."""
    where = address(folder)
    library.index(where)
    before = library.embeddings()
    proxy.rule = lambda path, asked: fault if "a.jpg" in path else ""
    proxy.requests.clear()
    report = library.index(where, rescan=True)
    if fault == "denied":
        assert len([path for _, path in proxy.requests if "a.jpg" in path]) == 1, "it is useless to ask again"
    assert (report.missing, report.offline, report.failed) == (0, (), 2)
    reasons = {failure.path: failure.reason for failure in report.failures}
    assert reasons[f"{where}/a.jpg"].endswith(said)
    proxy.rule = lambda path, asked: ""
    again = library.index(where)
    assert (again.failed, again.missing) == (1, 0)
    assert library.status().photos == 4
    assert library.embeddings().vectors.tolist() == before.vectors.tolist()


def test_the_vector_of_half_a_picture_is_never_kept(
    proxy: FaultyProxy, object_store: ObjectStore, folder: str, library: Library
) -> None:
    """A GIF whose second picture is cut off decodes, and its name and date are those of the whole."""
    pictures = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    buffer = BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:] * 8)
    object_store.put(f"{folder}/moving.gif", buffer.getvalue())
    proxy.rule = lambda path, asked: "short" if "moving" in path else ""
    assert f"{address(folder)}/moving.gif" in {one.path for one in library.index(address(folder)).failures}
    proxy.rule = lambda path, asked: ""
    assert library.index(address(folder)).added == 1


def test_a_storage_that_lists_and_gives_nothing_ends_the_run(
    proxy: FaultyProxy, object_store: ObjectStore, folder: str, library: Library
) -> None:
    for i in range(20):
        object_store.put(f"{folder}/many/{i}.jpg", (i, 255 - i, 3 * i))
    for readable in ("notes", "trip/no suffix & ünusual? #1"):  # one that is read begins the count anew
        object_store.delete(f"{folder}/{readable}")
    proxy.rule = lambda path, asked: "error" if ".jpg" in path.lower() else ""
    with pytest.raises(StorageUnreachable, match="the storage has an error of its own"):
        library.index(address(folder))
    assert library.status().missing == 0
    proxy.rule = lambda path, asked: ""
    forget_connections()
    assert library.index(address(folder)).failed == 1
    assert library.status().photos == 23


@pytest.mark.parametrize("fault", ["error", "slow_down", "cut", "short", "reset", "denied"])
def test_a_listing_that_fails_in_the_middle_loses_nothing(
    fault: str, proxy: FaultyProxy, folder: str, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = address(folder)
    library.index(where)
    monkeypatch.setattr(object_storage, "_PAGE", 3)
    proxy.rule = lambda path, asked: fault if "continuation-token" in path else ""
    report = library.index(where)
    assert proxy.faults
    assert (report.missing, len(report.problems)) == (0, 1)
    proxy.rule = lambda path, asked: ""
    forget_connections()
    assert library.index(where).unchanged == 4


def test_links_are_copies(sign_in: SignIn, folder: str, library: Library, tmp_path: Path) -> None:
    library.index(address(folder))
    photos = library.photos()
    assert library.export_links(tmp_path / "out", photos) == 4
    copied = [file.read_bytes() for file in sorted((tmp_path / "out").iterdir())]
    assert copied == [read_photo(photo.path) for photo in photos]


def test_folders_that_are_not_there(
    sign_in: SignIn, object_store: ObjectStore, library: Library, unused_endpoint: str
) -> None:
    def said(where: str) -> str:
        with pytest.raises(LibraryError) as caught:
            library.index(where)
        return str(caught.value)

    object_store.put("open/film.mp4", b"film")
    assert said(f"s3://{BUCKET}/open/film.mp4").endswith(" is a file; name the folder that it is in")
    object_store.delete("open/film.mp4")
    assert said(f"s3://{BUCKET}/typo") == f"s3://{BUCKET}/typo has no objects; check the name"
    assert "there is no such bucket" in said("s3://no-such-bucket/x")
    sign_in(STRANGER)
    assert "access is denied" in said(f"s3://{BUCKET}/open")
    sign_in(AWS_ENDPOINT_URL=unused_endpoint)
    assert "its storage cannot be reached" in said(f"s3://{BUCKET}/open")


def test_single_objects_may_be_denied(sign_in: SignIn, object_store: ObjectStore, library: Library) -> None:
    object_store.put("closed/a.jpg", (1, 2, 3))
    sign_in(READER)
    report = library.index(f"s3://{BUCKET}/closed")
    assert [failure.reason for failure in report.failures] == ["access is denied"]
    object_store.delete("closed")


@pytest.mark.parametrize(
    "written",
    [
        f"s3://OWNERKEY:owner/secret@{BUCKET}/open",
        f"s3://token@{BUCKET}/open",
        f"s3://{BUCKET}/a.jpg?X-Amz-Signature=owner",
    ],
)
def test_addresses_with_credentials_are_refused(
    written: str, library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LibraryError, match="must not hold a user, a password or a key") as caught:
        library.index(written)
    assert "owner" not in str(caught.value).lower()
    assert run(["index", written, "--library", str(library.folder)]) == 1
    assert "owner" not in "".join(capsys.readouterr()).lower()


def test_server_that_dies_in_mid_run(
    sign_in: SignIn,
    object_store: ObjectStore,
    folder: str,
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was indexed is kept, one sentence says so, and the next run goes on. No secret is anywhere."""

    def put_many() -> None:
        for i in range(40):
            object_store.put(f"{folder}/many/{i}.jpg", (i, 255 - i, 3 * i))

    put_many()
    monkeypatch.setattr(stored_files, "_MOST_FILES", 4)
    try:
        kept = index_until_killed(library, address(folder), object_store.kill, done=8)
    finally:
        object_store.start()
    fill(object_store, folder)
    put_many()
    forget_connections()
    report = library.index(address(folder))
    assert report.added + report.unchanged == 44
    assert report.unchanged == kept >= 4, "what was recorded before is not embedded again"
    assert library.status().failed == 1
    texts = [caplog.text, *(row for row in _all_text(library.folder))]
    assert not any(OWNER[1] in text for text in texts)


def _all_text(folder: Path) -> Iterator[str]:
    """Every file of a library as text."""
    for file in folder.rglob("*"):
        if file.is_file():
            yield file.read_bytes().decode("latin-1")
