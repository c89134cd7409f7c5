"""`classify` with photos in a bucket: the tags are those from a disk; a storage that is away ends the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.dying_storage import nobody_listens
from tests.helpers.faulty_proxy import FaultyProxy
from tests.helpers.object_store import BUCKET, OWNER, ObjectStore
from vitmae_search.cli.main import run
from vitmae_search.errors import StorageUnreachable
from vitmae_search.indexing import stored_files
from vitmae_search.library import Library
from vitmae_search.photos.file_system import opened_storage

WHERE = f"s3://{BUCKET}/open/colours"
COLOURS = ("red", "green", "blue")


@pytest.fixture
def photos(
    object_store: ObjectStore,
    tmp_path: Path,
    write_colour: Callable[[Path, str, int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    """Twelve photos on disk, and the same in a bucket."""
    for name, value in object_store.environment(OWNER).items():
        monkeypatch.setenv(name, value)
    opened_storage.cache_clear()
    for seed in range(12):
        file = write_colour(tmp_path / "photos" / f"{COLOURS[seed % 3]}-{seed}.jpg", COLOURS[seed % 3], seed)
        object_store.put(f"open/colours/{file.name}", file.read_bytes())
    yield tmp_path / "photos"
    object_store.delete("open/colours")
    opened_storage.cache_clear()


@pytest.fixture
def library(tmp_path: Path, photos: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library", embedder="color_layout") as opened:
        opened.index(WHERE)
    with Library.open(tmp_path / "library", device="cpu", precision="fp32", batch_size=2) as opened:
        yield opened


def tags_by_name(library: Library) -> dict[str, list[tuple[str, float]]]:
    return {
        photo.path.rsplit("/", 1)[1]: [(tag.name, tag.confidence) for tag in library.tags(photo.photo_id)]
        for photo in library.photos()
    }


def test_the_tags_are_those_from_a_disk(
    library: Library,
    photos: Path,
    colour_model: Path,
    tmp_path: Path,
    object_store: ObjectStore,
    capfd: pytest.CaptureFixture[str],
) -> None:
    place = ["--library", str(library.folder), "--device", "cpu", "--precision", "fp32", "--json"]
    before = object_store.requests()
    assert run(["classify", "--model", str(colour_model), "--under", WHERE, *place]) == 0
    assert object_store.requests() - before == 12, "each photo is read once, in one request"
    report = json.loads(capfd.readouterr().out)
    assert (report["classified"], report["failed"]) == (12, 0)
    with Library.open(tmp_path / "of disk", embedder="color_layout") as of_disk:
        of_disk.index(photos)
    with Library.open(tmp_path / "of disk", device="cpu", precision="fp32") as of_disk:
        of_disk.classify(colour_model)
        assert tags_by_name(library) == tags_by_name(of_disk)
    assert library.classify(colour_model).unchanged == 12


def test_a_storage_that_is_away_ends_the_run(
    library: Library, colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_files, "_MOST_FILES", 2)
    lost: list[bool] = []

    def lose_it(progress: object) -> None:
        if getattr(progress, "done", 0) >= 4 and not lost:
            lost.append(True)
            monkeypatch.setenv("AWS_ENDPOINT_URL", nobody_listens())
            opened_storage.cache_clear()

    with pytest.raises(StorageUnreachable) as caught:
        library.classify(colour_model, on_progress=lose_it)
    assert str(caught.value) == (
        f"s3://{BUCKET} cannot be read now: its storage cannot be reached. What was done is kept; run the "
        "same command again to go on."
    )


def test_it_goes_on_where_it_ended(
    library: Library, colour_model: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_files, "_MOST_FILES", 2)
    with FaultyProxy(object_store.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        opened_storage.cache_clear()
        served: list[str] = []

        def after_six(path: str, asked: int) -> str:
            served.append(path)
            return "reset" if len(served) > 6 else ""

        proxy.rule = after_six  # type: ignore[assignment]
        with pytest.raises(StorageUnreachable):
            library.classify(colour_model)
        done = sum(map(bool, tags_by_name(library).values()))
        assert 1 <= done <= 6
        proxy.rule = lambda path, asked: "denied" if "red-0" in path else ""
        opened_storage.cache_clear()
        report = library.classify(colour_model)
        assert [failure.reason for failure in report.failures] == ["access is denied"]
        assert report.unchanged + report.classified == 11
        assert report.unchanged >= done


def test_a_copy_on_disk_is_read_where_the_storage_is_away(
    library: Library, photos: Path, colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Library.open(library.folder, embedder="color_layout") as opened:
        opened.index(photos)
    monkeypatch.setenv("AWS_ENDPOINT_URL", nobody_listens())
    opened_storage.cache_clear()
    assert library.classify(colour_model).classified == 12
