"""A device that is lost or full during a run: one sentence, finished work is kept, and nothing is doubled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitmae_search.catalog import CatalogWriter
from vitmae_search.cli.main import run as command
from vitmae_search.errors import DeviceError
from vitmae_search.library import Library
from vitmae_search.library.adapt.fit import AdaptOptions
from vitmae_search.vectors import VectorCache

PHOTOS, BATCH = 21, 4
LOST = "the device was lost"
FULL = "has not enough memory"
SAID = "error: the device was lost; what was done is kept, and the same command goes on with it\n"


@pytest.fixture
def many(tmp_path: Path, write_photo: Callable[[Path, int], Path]) -> Path:
    for seed in range(PHOTOS):
        write_photo(tmp_path / "many" / f"{seed:02d}.jpg", seed)
    return tmp_path / "many"


@pytest.fixture
def new(tmp_path: Path, failing: Path) -> Callable[..., Library]:
    """Open a library of the plugin "failing"."""

    def opened(name: str = "library", **options: Any) -> Library:
        options = {"embedder": "failing", "batch_size": BATCH} | options
        return Library.open(tmp_path / name, plugin_folders=[failing], **options)

    return opened


@pytest.fixture
def library(new: Callable[..., Library], many: Path) -> Iterator[Library]:
    """All photos indexed, and the embedder open."""
    with new() as opened:
        opened.index(many)
        yield opened


def vectors(library: Library) -> dict[str, np.ndarray]:
    """Each photo's vector by its path; one for each, and as many in the index file."""
    with CatalogWriter.open_writer(library.folder) as catalog:
        assert catalog.check() == []
        (space,) = catalog.spaces()
        photos = list(catalog.photos())
        found = {photo.path: catalog.vector(space.space_id, photo.content_id) for photo in photos}
        assert len(found) == len(photos) == space.vectors
        source = catalog.vector_source(space.space_id)
        cache = VectorCache(library.folder / "vectors")
        assert not photos or cache.path(source.key).exists()
        assert len(cache.open(source)) == space.vectors
    return {path: vector for path, vector in found.items() if vector is not None}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


@pytest.mark.parametrize("calls", [0, 1, 3, 5])
def test_a_run_ends_at_once_and_the_next_one_goes_on(
    new: Callable[..., Library], many: Path, failing: Path, calls: int
) -> None:
    (failing / "lost").write_text(str(calls))
    with new() as library:
        with pytest.raises(DeviceError, match=LOST):
            library.index(many, run_key="first")
        (opened,) = library._embedders._open.values()
        assert opened._opened.calls <= calls + 2, "no photo is tried alone"  # one more: who else was at work
        told = library.job("first")
        assert told is not None
        assert told.state == "failed"
        assert LOST in (told.error or "")
        kept = vectors(library)
        assert len(kept) == calls * BATCH
        status = library.status()
        assert (status.photos, status.missing, status.failed) == (len(kept), 0, 0)
    (failing / "lost").unlink()
    with new() as library:
        report = library.index(many)
        assert (report.added, report.unchanged, report.failed) == (PHOTOS - len(kept), len(kept), 0)
        whole = vectors(library)
    assert all(np.array_equal(whole[path], kept[path]) for path in kept)
    with new("undisturbed") as library:
        library.index(many)
        assert same(vectors(library), whole)


@pytest.mark.parametrize("room", [1, 3])
def test_where_memory_is_short_parts_are_smaller_and_vectors_the_same(
    new: Callable[..., Library], many: Path, failing: Path, room: int
) -> None:
    with new("undisturbed", batch_size=16) as library:
        library.index(many)
        whole = vectors(library)
    (failing / "room").write_text(str(room))
    with new(batch_size=16) as library:
        report = library.index(many)
        assert (report.added, report.failed) == (PHOTOS, 0)
        assert same(vectors(library), whole)


@pytest.mark.parametrize("room", [0, -1])
def test_no_room_for_one_photo_or_for_the_model_ends_the_run(
    new: Callable[..., Library], many: Path, failing: Path, room: int
) -> None:
    (failing / "room").write_text(str(room))
    with new() as library:
        with pytest.raises(DeviceError, match=FULL):
            library.index(many)
        assert library.status().photos == 0


def test_a_search_and_a_reconstruction_without_room_are_one_sentence(
    library: Library, failing: Path, write_photo: Callable[[Path, int], Path], tmp_path: Path
) -> None:
    other = write_photo(tmp_path / "other.jpg", 99)
    (failing / "room").write_text("0")
    for ask in (library.search, library.reconstruct):
        with pytest.raises(DeviceError, match=FULL):
            ask(other)
    (failing / "room").unlink()
    assert len(library.search(other).hits) == 10, "there is room again"


def test_variants_are_embedded_one_by_one_where_there_is_room_for_one(
    new: Callable[..., Library],
    many: Path,
    failing: Path,
    write_photo: Callable[[Path, int], Path],
    tmp_path: Path,
) -> None:
    other = write_photo(tmp_path / "other.jpg", 99)
    with new() as library:
        library.index(many)
        found = library.search(other)
    (failing / "room").write_text("1")
    with new() as library:
        again = library.search(other)
    assert (again.variant, [hit.photo.path for hit in again.hits]) == (
        found.variant,
        [hit.photo.path for hit in found.hits],
    )


def test_known_photos_are_found_without_the_device(
    library: Library, many: Path, failing: Path, write_photo: Callable[[Path, int], Path], tmp_path: Path
) -> None:
    (failing / "lost").write_text("0")
    with pytest.raises(DeviceError, match=LOST):
        library.search(write_photo(tmp_path / "other.jpg", 99))
    assert library.search(many / "00.jpg", k=1).hits[0].photo.path == str(many / "00.jpg")
    assert len(library.similar(1, k=3).hits) == 3


def test_classify_keeps_its_finished_batches(library: Library, failing: Path) -> None:
    (failing / "lost").write_text("2")
    with pytest.raises(DeviceError, match=LOST):
        library.classify("any", plugin="failing", run_key="tags")
    told = library.job("tags")
    assert told is not None
    assert (told.state, LOST in (told.error or "")) == ("failed", True)
    assert sum(library.tag_counts().values()) >= 2 * BATCH
    (failing / "lost").unlink()
    report = library.classify("any", plugin="failing")
    assert (report.unchanged, report.classified, report.failed) == (2 * BATCH, PHOTOS - 2 * BATCH, 0)


def test_classify_in_smaller_parts(library: Library, failing: Path) -> None:
    (failing / "room").write_text("3")
    assert library.classify("any", plugin="failing").classified == PHOTOS
    (failing / "room").write_text("0")
    with pytest.raises(DeviceError, match=FULL):
        library.classify("any", plugin="failing", again=True)


def test_evaluate_measures_all_or_nothing(library: Library, many: Path, failing: Path) -> None:
    first = library.evaluate(many, instances=8, batch_size=16).methods[0].instances
    (failing / "room").write_text("3")
    assert library.evaluate(many, instances=8, batch_size=16).methods[0].instances == first
    (failing / "lost").write_text("1")
    with pytest.raises(DeviceError, match=LOST):
        library.evaluate(many, instances=8, batch_size=BATCH)


def test_adapt_changes_nothing_and_goes_on(new: Callable[..., Library], pieces: Path, failing: Path) -> None:
    options = AdaptOptions(photos=60, held_out=20, views=3, method="whitening", dimension=8)
    (failing / "room").write_text("32")
    with new("whole", batch_size=32) as library:
        library.index(pieces)
        whole = library.adapt(pieces, options)
    with new(batch_size=32) as library:
        library.index(pieces)
        (opened,) = library._embedders._open.values()
        (failing / "lost").write_text(str(opened._opened.calls + 9))
        with pytest.raises(DeviceError, match=LOST):
            library.adapt(pieces, options, run_key="adapt")
        told = library.job("adapt")
        assert told is not None
        assert (told.state, LOST in (told.error or "")) == ("failed", True)
        assert len(library.spaces()) == 1
        (failing / "lost").unlink()
        calls = opened._opened.calls
        report = library.adapt(pieces, options)
        assert opened._opened.calls - calls < 60 * 3 // 32 + 1 + 20, "what was encoded is kept"
        assert (report.digest, report.after) == (whole.digest, whole.after)


def test_the_commands_print_one_line(
    many: Path, failing: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    where = ["--library", str(tmp_path / "library")]
    (failing / "lost").write_text("2")
    outputs = ["--output", str(tmp_path / "report.md"), "--plot", str(tmp_path / "plot.png")]
    words = ["--embedder", "failing", "--batch-size", "4", *where]
    for one in (["index", str(many), *words], ["evaluate", str(many), *words, *outputs]):
        capfd.readouterr()
        assert command(one) == 1
        said = capfd.readouterr()
        assert said.err.splitlines(keepends=True)[-1] == SAID
        assert "Traceback" not in said.err
        assert said.out == ""
    assert not (tmp_path / "report.md").exists()
    assert not (tmp_path / "plot.png").exists()
    (failing / "lost").write_text("0")
    other = str(many / "20.jpg")
    for one in (["search", other, *where], ["classify", "--model", "any", "--plugin", "failing", *where]):
        capfd.readouterr()
        assert command(one) == 1, one
        assert capfd.readouterr().err.endswith(SAID)


def test_a_background_job_reports_a_lost_device_and_its_library_stays_usable(
    new: Callable[..., Library], many: Path, failing: Path
) -> None:
    (failing / "lost").write_text("2")
    with new() as library:
        key = library.start_job("index", many, "--embedder", "failing", "--batch-size", str(BATCH))
        deadline = time.monotonic() + 60
        while (told := library.job(key)) is None or told.state == "running":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert (told.state, LOST in (told.error or "")) == ("failed", True)
        assert library.status().photos == 2 * BATCH
        assert len(library.search(many / "00.jpg", k=3).hits) == 3
