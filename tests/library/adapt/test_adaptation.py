"""`Library.adapt`: better searches from a sample of the photos, or no change at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.catalog import CatalogWriter
from vitmae_search.embedding import Projection
from vitmae_search.errors import (
    ConfigError,
    LibraryBusy,
    LibraryEmpty,
    SpaceError,
    StorageError,
    TrainingError,
)
from vitmae_search.library import Library
from vitmae_search.library.adapt.fit import AdaptOptions
from vitmae_search.library.adapt.save import stored_features
from vitmae_search.photos import PhotoProcesses
from vitmae_search.photos.photo_processes import LoadedPhoto
from vitmae_search.records import JobProgress
from vitmae_search.training.adaptation import fit_whitening

SMALL = AdaptOptions(photos=80, views=4, held_out=20, method="discriminant", dimension=12)
WORSE = replace(SMALL, method="whitening", dimension=1)
"""All vectors are +1 or -1: nobody finds anything with that."""


@pytest.fixture(scope="module")
def indexed(pieces: Path, mean_dominated_plugins: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of the pieces."""
    folder = tmp_path_factory.mktemp("indexed") / "library"
    with Library.open(folder, embedder="mean_dominated", plugin_folders=[mean_dominated_plugins]) as library:
        library.index(pieces)
    return folder


@pytest.fixture
def library(indexed: Path, mean_dominated_plugins: Path, tmp_path: Path) -> Iterator[Library]:
    """A copy of it."""
    shutil.copytree(indexed, tmp_path / "library")
    with Library.open(tmp_path / "library", plugin_folders=[mean_dominated_plugins]) as opened:
        yield opened


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the photos that are read."""
    paths: list[str] = []

    load = PhotoProcesses.load

    def counted(processes: PhotoProcesses, path: str, shrink_to: int | None = None) -> LoadedPhoto:
        paths.append(path)
        return load(processes, path, shrink_to)

    monkeypatch.setattr(PhotoProcesses, "load", counted)
    return paths


def state(library: Library) -> tuple[object, ...]:
    """What must not change: spaces, the current one, projections."""
    folder = library.folder / "projections"
    files = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    return [(space.space_id, space.revision, space.current) for space in library.spaces()], files


def test_what_is_better_becomes_the_current_space(library: Library, pieces: Path, reads: list[str]) -> None:
    report = library.adapt(pieces, SMALL)
    assert report.kept
    assert report.difference is not None
    assert report.difference.low > 0
    assert (report.photos, report.held_out, report.failed, report.copies) == (80, 20, 0, 0)
    assert (report.kind, report.dimension, report.before_kind) == ("discriminant", 12, None)
    features, derived = library.spaces()
    assert derived.current
    assert (derived.space_id, derived.parent_id, derived.dimension) == (report.space, features.space_id, 12)
    assert derived.vectors == features.vectors == 100
    assert len(reads) == len(set(reads)) == 100  # the sample, once; making the space read nothing
    result = library.search(pieces / "coffee-03.png", k=1)
    assert result.space.space_id == derived.space_id
    assert Path(result.hits[0].photo.path).name == "coffee-03.png"


@pytest.mark.parametrize(("wanted", "guessed"), [(2, False), (1, True)])
def test_turns_are_guessed_where_enough_photos_were_held_out(
    library: Library, pieces: Path, monkeypatch: pytest.MonkeyPatch, wanted: int, guessed: bool
) -> None:
    """Twenty photos are held out for vectors of twelve numbers."""
    monkeypatch.setattr("vitmae_search.library.adapt.adaptation._TURNED_PER_DIMENSION", wanted)
    report = library.adapt(pieces, SMALL)
    assert report.kept
    assert report.digest is not None
    turns = Projection.read_stored(library.folder / "projections", report.digest).turns
    assert (turns is not None) == guessed
    if turns is not None:
        assert turns.shape == (3, 12, 12)


def test_the_new_space_says_what_its_scores_mean(
    library: Library, pieces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitmae_search.evaluation.duplicates.MIN_CALIBRATION_PHOTOS", 21)
    assert library.adapt(pieces, WORSE).calibration is None  # 20 photos held out are too few
    monkeypatch.setattr("vitmae_search.evaluation.duplicates.MIN_CALIBRATION_PHOTOS", 20)
    report = library.adapt(pieces, SMALL)
    assert report.kept
    assert report.calibration is not None
    assert report.calibration.photos == 20
    (derived,) = [space for space in library.spaces() if space.current]
    assert derived.calibration == report.calibration
    photo = library.photos()[0]
    least = report.calibration.alike
    assert least is not None
    hits = library.similar(photo.photo_id, k=99, min_score="alike").hits
    assert hits == tuple(h for h in library.similar(photo.photo_id, k=99).hits if h.score >= least)
    assert report.digest is not None
    stored = Projection.read_stored(library.folder / "projections", report.digest)
    assert stored.calibration == report.calibration


def test_only_the_photos_drawn_are_read(
    library: Library, pieces: Path, reads: list[str], tmp_path: Path, write_photo: Callable[[Path, int], Path]
) -> None:
    """The library's photos may even be gone."""
    for seed in range(50):
        write_photo(tmp_path / "others" / f"{seed}.jpg", seed)
    report = library.adapt(tmp_path / "others", replace(SMALL, photos=20))
    assert (report.photos, report.held_out) == (20, 10)  # a fifth of the folder at most
    assert len(reads) == 30
    assert all(Path(path).parent == tmp_path / "others" for path in reads)


def test_the_new_space_holds_the_projections_of_the_stored_features(library: Library, pieces: Path) -> None:
    report = library.adapt(pieces, SMALL)
    assert report.digest is not None
    projection = Projection.read_stored(library.folder / "projections", report.digest)
    assert projection.provenance["plugin"] == "mean_dominated"
    assert projection.provenance["photos"] == "72"  # the others were set aside, to choose by
    with CatalogWriter.open_writer(library.folder) as catalog:
        features, derived = catalog.spaces()
        for photo in catalog.photos():
            before = catalog.vector(features.space_id, photo.content_id)
            after = catalog.vector(derived.space_id, photo.content_id)
            assert before is not None
            np.testing.assert_allclose(projection(before[None])[0], after, atol=1e-5)


@pytest.fixture
def narrow(pieces: Path, mean_dominated_plugins: Path, tmp_path: Path) -> Iterator[Library]:
    """A library with several photos for each dimension."""
    text = (mean_dominated_plugins / "mean_dominated.py").read_text()
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/mean_dominated.py").write_text(text.replace("(8, 8)", "(3, 3)").replace("195", "30"))
    with Library.open(
        tmp_path / "narrow", embedder="mean_dominated", plugin_folders=[tmp_path / "plugins"]
    ) as opened:
        opened.index(pieces)
        yield opened


def test_whitening_takes_what_is_stored_but_for_the_photos_that_judge_it(
    narrow: Library, pieces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[NDArray[np.float32] | None] = []

    def watched(*arguments: Any) -> NDArray[np.float32] | None:
        taken.append(stored_features(*arguments))
        return taken[-1]

    monkeypatch.setattr("vitmae_search.library.adapt.save.stored_features", watched)
    report = narrow.adapt(pieces, replace(SMALL, photos=40, method="whitening"))
    (features,) = taken
    assert features is not None
    assert len(features) == 100 - 20 - 4  # held out, and a tenth set aside
    weight, bias = fit_whitening(features, dimension=SMALL.dimension)
    assert report.digest == Projection([weight], [bias], "whitening").digest


def test_the_photos_left_out_are_those_that_were_named(narrow: Library) -> None:
    with CatalogWriter.open_writer(narrow.folder) as catalog:
        space = catalog.spaces()[0]
        rows = {photo.digest: catalog.vector(space.space_id, photo.content_id) for photo in catalog.photos()}
        named, others = list(rows)[:7], list(rows)[7:]
        found = stored_features(catalog, space, [*named, "of no photo here"])
    assert found is not None
    assert {row.tobytes() for row in found} == {row.tobytes() for d in others if (row := rows[d]) is not None}
    assert len(found) == 93


def test_what_is_not_better_changes_nothing(library: Library, pieces: Path, tmp_path: Path) -> None:
    before = state(library)
    report = library.adapt(pieces, WORSE)
    assert not report.kept
    assert report.space is None
    assert report.difference is not None
    assert report.difference.high < 0
    assert state(library) == before
    report = library.adapt(pieces, WORSE, output=tmp_path / "worse.safetensors")
    assert report.output is None
    assert not (tmp_path / "worse.safetensors").exists()


def test_the_projection_in_use_is_what_a_new_one_has_to_beat(library: Library, pieces: Path) -> None:
    first = library.adapt(pieces, SMALL)
    again = library.adapt(pieces, SMALL)
    assert again.before_kind == "discriminant"
    assert again.before == first.after
    assert not again.kept  # the same once more is no better
    assert len(library.spaces()) == 2


def test_equal_seeds_give_equal_projections(
    pieces: Path, tmp_path: Path, mean_dominated_plugins: Path
) -> None:
    options = replace(SMALL, method="auto", epochs=2)
    digests = []
    for seed in (1, 1, 2):
        with Library.open(
            tmp_path / "none", embedder="mean_dominated", plugin_folders=[mean_dominated_plugins]
        ) as library:
            report = library.adapt(pieces, replace(options, seed=seed), output=tmp_path / "made")
            digests.append(report.digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_file_needs_no_library_and_leaves_one_alone(
    library: Library, pieces: Path, mean_dominated_plugins: Path, tmp_path: Path
) -> None:
    before = state(library)
    library.adapt(pieces, SMALL, output=tmp_path / "one.safetensors")
    assert state(library) == before
    opening = {
        "embedder": "mean_dominated",
        "options": {"side": "9"},
        "plugin_folders": [mean_dominated_plugins],
    }
    with Library.open(tmp_path / "nothing", **opening) as other:  # type: ignore[arg-type]
        report = other.adapt(pieces, SMALL, output=tmp_path / "two.safetensors")
    assert not (tmp_path / "nothing").exists()
    assert report.kept
    assert report.output == str(tmp_path / "two.safetensors")
    assert Projection.read(report.output).provenance["side"] == "9"  # whoever uses it needs the same
    digests = {Projection.read(tmp_path / f"{name}.safetensors").digest for name in ("one", "two")}
    assert digests == {report.digest}


def test_a_stopped_run_changes_nothing_and_the_next_one_goes_on(
    library: Library, pieces: Path, tmp_path: Path, reads: list[str]
) -> None:
    whole = library.adapt(pieces, SMALL, output=tmp_path / "whole.safetensors")
    before, read = state(library), len(reads)
    seen: list[JobProgress] = []
    stopped = library.adapt(
        pieces,
        replace(SMALL, method="head", epochs=3),
        on_progress=seen.append,
        cancelled=lambda: bool(seen) and seen[-1].phase == "encoding" and seen[-1].done >= 60,
    )
    assert stopped.interrupted
    assert not stopped.kept
    assert state(library) == before
    assert library.jobs()[0].state == "cancelled"
    first = len(reads) - read
    assert first < 100
    finished = library.adapt(pieces, SMALL)
    assert finished.digest == whole.digest
    assert finished.kept
    assert len(reads) - read - first <= 60  # what had been encoded was not read again
    assert not list((tmp_path / "cached" / "adapting").iterdir())


def test_ctrl_c_in_the_middle_leaves_the_library_as_it_was(library: Library, pieces: Path) -> None:
    before = state(library)

    def interrupt(moment: JobProgress) -> None:
        if moment.phase == "training":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.adapt(pieces, replace(SMALL, method="head"), on_progress=interrupt)
    assert state(library) == before
    assert library.jobs()[0].state == "cancelled"
    assert library.adapt(pieces, SMALL).kept  # and nothing is locked


def test_damaged_files_and_copies_are_counted_and_harm_nobody(
    library: Library, pieces: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "some"
    shutil.copytree(pieces, folder)
    (folder / "damaged.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    for i in range(4):
        shutil.copy(folder / f"coffee-{i:02d}.png", folder / f"copy-{i}.png")
    report = library.adapt(folder, replace(SMALL, photos=200))
    assert (report.failed, report.copies) == (1, 4)
    assert report.photos + report.held_out == 100
    assert [Path(failure.path).name for failure in report.failures] == ["damaged.jpg"]


def test_a_second_writer_is_refused(library: Library, pieces: Path) -> None:
    with CatalogWriter.open_writer(library.folder), pytest.raises(LibraryBusy):
        library.adapt(pieces, SMALL)


def test_the_run_is_told_of(library: Library, pieces: Path) -> None:
    seen: list[JobProgress] = []
    library.adapt(pieces, replace(SMALL, method="head", epochs=2), on_progress=seen.append, run_key="mine")
    run = library.job("mine")
    assert run is not None
    assert (run.kind, run.state, run.progress["phase"]) == ("adapt", "done", "done")
    assert run.report is not None
    assert run.report["kind"] == "head"
    phases = list(dict.fromkeys(moment.phase for moment in seen))
    assert phases == ["scanning", "encoding", "training", "finishing", "done"]
    encoded = [moment for moment in seen if moment.phase == "encoding"]
    assert [moment.done for moment in encoded] == list(range(1, 101))
    assert {moment.total for moment in encoded} == {100}


def test_little_time_means_fewer_photos(library: Library, pieces: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    for copy in range(2):  # other contents: a pixel is changed
        for path in sorted(pieces.iterdir()):
            image = Image.open(path)
            image.putpixel((0, 0), (copy, 7, 9))
            (folder / str(copy)).mkdir(parents=True, exist_ok=True)
            image.save(folder / str(copy) / path.name)
    report = library.adapt(folder, replace(SMALL, photos=160, minutes=1e-4, method="head"))
    assert 60 <= report.photos < 120


def test_little_time_is_not_all_spent_on_the_photos_held_out(
    library: Library, pieces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[JobProgress] = []
    clock = property(lambda teller: float(seen[-1].done) if seen else 0.0)  # a photo takes a second
    monkeypatch.setattr("vitmae_search.library.adapt.adaptation.ProgressReporter.seconds", clock)
    monkeypatch.setattr("vitmae_search.library.adapt.adaptation._MIN_ENCODED", 16)
    report = library.adapt(pieces, replace(SMALL, minutes=1, views=8), on_progress=seen.append)
    assert 16 <= report.held_out < 20  # 400 of 1040 views, so 17 of the 42 seconds
    assert 20 < report.photos < 40


def test_a_run_that_goes_on_with_more_time_holds_out_nothing_it_learned_from(
    library: Library, pieces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "twice"
    for copy in "ab":
        shutil.copytree(pieces, folder / copy)
    seen: list[JobProgress] = []
    with monkeypatch.context() as patched:
        clock = property(lambda teller: float(seen[-1].done) if seen else 0.0)
        patched.setattr("vitmae_search.library.adapt.adaptation.ProgressReporter.seconds", clock)
        patched.setattr("vitmae_search.library.adapt.adaptation._MIN_ENCODED", 16)
        stopped = library.adapt(
            folder,
            replace(SMALL, held_out=40, photos=160, minutes=1),
            on_progress=seen.append,
            cancelled=lambda: bool(seen) and seen[-1].phase == "finishing",
        )
    assert stopped.interrupted
    report = library.adapt(folder, replace(SMALL, held_out=40, photos=160))
    assert report.held_out + report.photos == report.copies == 100


def test_what_cannot_be_done_is_said(
    library: Library, pieces: Path, tmp_path: Path, write_photo: Callable[[Path, int], Path]
) -> None:
    for seed in range(39):
        write_photo(tmp_path / "few" / f"{seed}.jpg", seed)
    with pytest.raises(TrainingError, match=r"39 photos .* it takes 40"):
        library.adapt(tmp_path / "few", SMALL)
    with pytest.raises(TrainingError, match="nowhere cannot be read"):
        library.adapt(tmp_path / "nowhere", SMALL)
    with pytest.raises(StorageError, match="not a folder"):
        library.adapt(pieces, SMALL, output=tmp_path / "nowhere" / "file")
    with pytest.raises(StorageError, match="is a folder: the projection needs a file's name"):
        library.adapt(pieces, SMALL, output=tmp_path)
    with pytest.raises(LibraryEmpty):
        Library.open(tmp_path / "empty").adapt(pieces, SMALL)
    with (
        Library.open(library.folder, embedder="color_layout") as other,
        pytest.raises(SpaceError, match="nothing is indexed with this model"),
    ):
        other.adapt(pieces, SMALL)
    assert library.jobs()[0].state == "failed"


@pytest.mark.parametrize(
    "values",
    [
        *({"photos": 15}, {"views": 1}, {"held_out": 7}, {"minutes": 0.0}, {"method": "magic"}),
        *({"dimension": 0}, {"epochs": 0}, {"neighbours": 1.0}, {"seed": -1}),
    ],
)
def test_options_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        AdaptOptions(**values)  # type: ignore[arg-type]
