"""Photos on Google Cloud Storage, read from a real server that speaks its JSON API."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from tests.helpers.dying_storage import index_until_killed, nobody_listens
from tests.helpers.faulty_proxy import FaultyProxy
from tests.helpers.google_storage import GoogleStorage, one_page
from tests.helpers.object_store import BUCKET, picture
from vitmae_search import Library
from vitmae_search.errors import LibraryError, StorageUnreachable
from vitmae_search.indexing import stored_files
from vitmae_search.photos import google_storage as google
from vitmae_search.photos import object_storage
from vitmae_search.photos.file_system import opened_storage

ODD_NAMES = ("100% {x}//d.jpg", "trip/e+f.jpg", "trip/g\nh.jpg", "back\\slash.jpg", "trip/#1 & ünusual?")


@pytest.fixture
def at(google_storage: GoogleStorage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Find the storage at an endpoint, as a new process would."""
    monkeypatch.setattr(google, "_FIRST_WAIT", 0.01)
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})  # what FSSPEC_GS_TOKEN would do

    def change(endpoint: str | None = None) -> None:
        for name, value in google_storage.environment(endpoint).items():
            monkeypatch.setenv(name, value)
        opened_storage.cache_clear()

    change()
    yield change
    opened_storage.cache_clear()


@pytest.fixture
def folder(google_storage: GoogleStorage, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a folder of this test's own, with three photos and other things."""
    name = f"open/{request.function.__name__}"
    fill(google_storage, name)
    yield name
    with contextlib.suppress(KeyError):
        google_storage.delete(name)


def fill(google_storage: GoogleStorage, name: str) -> None:
    for i, place in enumerate(("a.jpg", "b.JPG", "trip/c.jpg")):
        google_storage.put(f"{name}/{place}", (60 * i, 200 - 40 * i, 90))
    google_storage.put(f"{name}/.hidden/x.jpg", (9, 9, 9))
    google_storage.put(f"{name}/@eaDir/x.jpg", (9, 9, 9))
    google_storage.put(f"{name}/trip/", b"")
    google_storage.put(f"{name}/notes", b"no photo")
    google_storage.put(f"{name}/empty.jpg", b"")


@pytest.fixture
def proxy(google_storage: GoogleStorage, at: Callable[..., None]) -> Iterator[FaultyProxy]:
    """Stands before the server, lists in pages as Google does, and answers wrongly where a test says so."""
    with FaultyProxy(google_storage.endpoint, change=one_page) as running:
        at(running.endpoint)
        yield running


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library", embedder="color_layout", batch_size=4) as opened:
        yield opened


def address(folder: str) -> str:
    return f"gs://{BUCKET}/{folder}"


def test_index_changes_moves_and_deletions(
    at: Callable[..., None], google_storage: GoogleStorage, folder: str, library: Library, tmp_path: Path
) -> None:
    where = address(folder)
    for i, name in enumerate(ODD_NAMES):
        google_storage.put(f"{folder}/{name}", (250, 40 * i, 9))
    first = library.index(where.replace("gs://", "gcs://") + "/")
    assert (first.added, first.failed, first.problems) == (8, 1, ())
    assert (first.not_looked_at, first.left_out) == ({"": 1}, (f"{where}/@eaDir",))
    ids = {photo.path: photo.photo_id for photo in library.photos()}
    assert ids.keys() >= {f"{where}/{name}" for name in ODD_NAMES}
    google_storage.set_metadata(f"{folder}/a.jpg", place="Bern")
    assert library.index(where).unchanged == 8, "its content is as it was"

    google_storage.move(f"{folder}/a.jpg", f"{folder}/trip/moved.jpg")
    data = picture((60, 160, 90))
    google_storage.put(f"{folder}/b.JPG", data[:-3] + b"\x00" + data[-2:])  # as long as it was
    google_storage.delete(f"{folder}/trip/c.jpg")
    changed = library.index(where)
    assert (changed.moved, changed.updated, changed.missing, changed.unchanged) == (1, 1, 1, 5)
    assert {photo.path: photo.photo_id for photo in library.photos()}[f"{where}/trip/moved.jpg"] == ids[
        f"{where}/a.jpg"
    ]
    google_storage.put(f"{folder} apart/query.jpg", (0, 200, 90))
    for query in (f"{where}/trip/moved.jpg", f"{where} apart/query.jpg"):
        assert library.search(query).hits[0].photo.path.endswith("/moved.jpg")
    google_storage.delete(f"{folder} apart")
    assert library.export_links(tmp_path / "out", library.photos()) == 7
    google_storage.put(f"{folder} elsewhere/a.jpg", (1, 2, 3))
    assert library.relocate(where, f"{where} elsewhere") == 8
    assert library.forget(f"{where} elsewhere").photos == 8
    google_storage.delete(f"{folder} elsewhere")


def test_what_cannot_be_listed_is_never_gone(
    proxy: FaultyProxy, at: Callable[..., None], folder: str, library: Library
) -> None:
    where = address(folder)
    library.index(where)
    nowhere = nobody_listens()
    for fault, said in (
        ("denied", "access is denied"),
        ("unknown", "the storage does not accept the credentials, or there are none"),
        ("error", "the storage has an error of its own; try again later"),
        (nowhere, "its storage cannot be reached"),
    ):
        proxy.rule = lambda path, asked, fault=fault: fault  # type: ignore[misc]
        at(nowhere if fault == nowhere else proxy.endpoint)
        report = library.index(where)
        assert (report.missing, report.unchanged, report.offline) == (0, 0, (where,))
        assert [problem.reason for problem in report.problems] == [said]
        with pytest.raises(LibraryError, match=f"cannot be looked into: {said}"):
            library.index(f"{where} new")
    proxy.rule = lambda path, asked: ""
    at(proxy.endpoint)
    assert library.index(where).unchanged == 3


def test_folders_that_are_not_there(at: Callable[..., None], folder: str, library: Library) -> None:
    with pytest.raises(LibraryError, match=r"a.jpg is a file; name the folder that it is in"):
        library.index(f"{address(folder)}/a.jpg")
    with pytest.raises(LibraryError, match="typo has no objects; check the name"):
        library.index(f"gs://{BUCKET}/typo")
    with pytest.raises(LibraryError, match="there is no such bucket at this endpoint"):
        library.index("gs://no-such-bucket/x")


def test_a_listing_that_fails_in_the_middle_loses_nothing(
    proxy: FaultyProxy, folder: str, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = address(folder)
    monkeypatch.setattr(object_storage, "_PAGE", 3)
    assert library.index(where).added == 3
    assert any("pageToken=3" in path for _, path in proxy.requests)
    for fault in ("slow_down", "cut", "short", "denied"):
        proxy.rule = lambda path, asked, fault=fault: fault if "pageToken" in path else ""  # type: ignore[misc]
        opened_storage.cache_clear()
        report = library.index(where)
        assert fault in proxy.faults
        assert (report.missing, len(report.problems)) == (0, 1)


def test_what_went_since_the_listing_is_no_failure(
    at: Callable[..., None], google_storage: GoogleStorage, folder: str, library: Library
) -> None:
    def delete(progress: object) -> None:
        with contextlib.suppress(KeyError):
            google_storage.delete(f"{folder}/a.jpg")

    report = library.index(address(folder), on_progress=delete)
    assert (report.added, report.failed, report.offline) == (2, 1, ())


def test_what_fails_at_first_is_asked_again(proxy: FaultyProxy, folder: str, library: Library) -> None:
    proxy.rule = lambda path, asked: ("slow_down", "cut", "reset", "")[min(asked, 3)]
    report = library.index(address(folder))
    assert (report.added, report.failed, report.problems) == (3, 1, ()), "the empty object alone fails"
    assert set(proxy.faults) == {"slow_down", "cut", "reset"}


def test_objects_that_always_fail_cost_themselves_alone(
    proxy: FaultyProxy, google_storage: GoogleStorage, folder: str, library: Library
) -> None:
    said = {
        "error": "the storage has an error of its own; try again later",
        "slow_down": "the storage is not available; try again later",
        "cut": "the storage's answer ends too early; try again later",
        "reset": "its storage cannot be reached",
        "short": "bytes came; index again",
        "denied": "access is denied",
    }
    for i, fault in enumerate(said):
        google_storage.put(f"{folder}/{fault}.jpg", (9, 200, 40 * i))
    proxy.rule = lambda path, asked: next((fault for fault in said if f"{fault}.jpg" in path), "")
    report = library.index(address(folder))
    assert (report.added, report.offline, report.failed) == (3, (), 7)
    reasons = {failure.path: failure.reason for failure in report.failures}
    for fault, reason in said.items():
        assert reasons[f"{address(folder)}/{fault}.jpg"].endswith(reason)
    asked = [path for _, path in proxy.requests if "denied.jpg" in path]
    assert len(asked) == 1, "it is useless to ask again"
    proxy.rule = lambda path, asked: ""
    again = library.index(address(folder))
    assert (again.added, again.failed, again.missing) == (6, 1, 0)


def test_a_storage_that_lists_and_gives_nothing_ends_the_run(
    proxy: FaultyProxy, google_storage: GoogleStorage, folder: str, library: Library
) -> None:
    for i in range(20):
        google_storage.put(f"{folder}/many/{i}.jpg", (i, 255 - i, 3 * i))
    google_storage.delete(f"{folder}/notes")  # one that is read begins the count anew
    proxy.rule = lambda path, asked: "error" if "alt=media" in path else ""
    with pytest.raises(StorageUnreachable, match="the storage has an error of its own"):
        library.index(address(folder))
    assert library.status().missing == 0


def test_server_that_dies_in_mid_run(
    at: Callable[..., None],
    google_storage: GoogleStorage,
    folder: str,
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was indexed is kept, one sentence says so, and the next run goes on."""

    def put_many() -> None:
        for i in range(20):
            google_storage.put(f"{folder}/many/{i}.jpg", (i, 255 - i, 3 * i))

    put_many()
    monkeypatch.setattr(stored_files, "_MOST_FILES", 4)

    try:
        kept = index_until_killed(library, address(folder), google_storage.kill, done=4)
    finally:
        google_storage.kill()
        google_storage.start()
    fill(google_storage, folder)
    put_many()
    at()
    report = library.index(address(folder))
    assert (report.found, report.failed, report.missing) == (24, 1, 0)
    assert kept >= 4
    assert library.status().photos == 23
