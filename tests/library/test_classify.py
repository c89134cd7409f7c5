"""`Library.classify`: from a classifier's probabilities to tags, and from tags to photos."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import CheckpointError, LibraryEmpty, ModelNotFound, PluginError
from vitmae_search.library import Library
from vitmae_search.records import SearchFilter

COLOURS = ("red", "green", "blue")
Rows = dict[str, dict[str, float]]


@pytest.fixture
def colours(tmp_path: Path, write_colour: Callable[[Path, str, int], Path]) -> Path:
    """Twelve photos, named for their colour, in two folders, and a copy of the first."""
    folder = tmp_path / "photos"
    for seed in range(12):
        colour = COLOURS[seed % 3]
        write_colour(folder / ("a" if seed < 6 else "b") / f"{colour}-{seed}.jpg", colour, seed)
    shutil.copy(folder / "a" / "red-0.jpg", folder / "b" / "copy.jpg")
    return folder


@pytest.fixture
def library(tmp_path: Path, colours: Path) -> Any:
    with Library.open(tmp_path / "library", embedder="color_layout") as opened:
        opened.index(colours)
    with Library.open(tmp_path / "library", device="cpu", precision="fp32") as opened:
        yield opened


@pytest.fixture
def expected(colour_model: Path) -> Callable[[Library], Rows]:
    """By path: each label's probability, straight from the model."""

    def probabilities(library: Library) -> Rows:
        import torch

        from vitmae_search.vitmae import ViTForImageClassification, ViTImageProcessor

        model = ViTForImageClassification.from_pretrained(colour_model)
        processor = ViTImageProcessor.from_pretrained(colour_model)
        found = {}
        for photo in library.photos():
            with Image.open(photo.path) as image, torch.no_grad():
                pixels = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"]
                row = model(pixels).logits.softmax(dim=1)[0].tolist()
            found[photo.path] = dict(zip(COLOURS, row, strict=True))
        return found

    return probabilities


def tags_of(library: Library) -> Rows:
    return {p.path: {t.name: t.confidence for t in library.tags(p.photo_id)} for p in library.photos()}


@pytest.mark.parametrize(("top", "least"), [(1, 0.0), (3, 0.0), (2, 0.1), (3, 0.9)])
def test_tags_are_the_best_of_the_softmax(
    library: Library, colour_model: Path, expected: Callable[[Library], Rows], top: int, least: float
) -> None:
    report = library.classify(colour_model, top=top, min_confidence=least)
    assert (report.classified, report.unchanged, report.failed) == (12, 0, 0)
    assert (report.labels, report.model, report.interrupted) == (COLOURS, "colours", False)
    found = tags_of(library)
    for path, row in expected(library).items():
        best = sorted(row.items(), key=lambda item: -item[1])[:top]
        kept = {name: sure for name, sure in best if sure >= least}
        assert list(found[path]) == list(kept)
        assert found[path] == pytest.approx(kept, abs=1e-5)
        if "copy" not in path and top == 1:
            assert os.path.basename(path).startswith(next(iter(kept)))


def test_copies_share_and_are_read_once(library: Library, colours: Path, colour_model: Path) -> None:
    library.classify(colour_model)
    found = tags_of(library)
    assert found[str(colours / "b" / "copy.jpg")] == found[str(colours / "a" / "red-0.jpg")]
    assert library.tag_counts()["red"] >= 5


def test_only_new_photos_are_classified(
    library: Library, colours: Path, colour_model: Path, write_colour: Callable[..., Path]
) -> None:
    library.classify(colour_model)
    again = library.classify(colour_model)
    assert (again.classified, again.unchanged) == (0, 12)
    write_colour(colours / "new.jpg", "blue", 99)
    library.index(colours)
    third = library.classify(colour_model)
    assert (third.classified, third.unchanged) == (1, 12)
    redone = library.classify(colour_model, again=True)
    assert (redone.classified, redone.unchanged) == (13, 0)


def test_photos_without_a_sure_tag_count_as_seen(library: Library, colour_model: Path) -> None:
    library.classify(colour_model, min_confidence=1.0)
    assert library.tag_counts() == {}
    assert library.classify(colour_model, min_confidence=1.0).unchanged == 12
    assert library.classify(colour_model, min_confidence=1).unchanged == 12


def test_other_options_replace_the_tags(library: Library, colour_model: Path) -> None:
    library.classify(colour_model, top=3, min_confidence=0)
    assert {len(row) for row in tags_of(library).values()} == {3}
    report = library.classify(colour_model, top=1, min_confidence=0)
    assert (report.classified, report.unchanged) == (12, 0)
    assert {len(row) for row in tags_of(library).values()} == {1}


def test_a_model_trained_anew_replaces_its_tags_and_another_adds_to_them(
    library: Library, colour_model: Path, tmp_path: Path
) -> None:
    mine = shutil.copytree(colour_model, tmp_path / "mine")
    library.classify(mine, top=1, min_confidence=0)
    before = library.tag_counts()
    config = (mine / "config.json").read_text()
    (mine / "config.json").write_text(config.replace('"red"', '"rose"'))
    library.classify(mine, top=1, min_confidence=0)
    assert library.tag_counts() == {"rose" if name == "red" else name: n for name, n in before.items()}
    assert library.classify(mine, top=1, min_confidence=0).unchanged == 12
    library.classify(colour_model, top=1, min_confidence=0)
    assert library.tag_counts()["red"] == library.tag_counts()["rose"]
    assert {tag.classifier for tag in library.tags(1)} == {"mine", "colours"}


def test_classes_of_one_name_add_up(library: Library, colour_model: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(colour_model, tmp_path / "mine")
    config = (mine / "config.json").read_text()
    (mine / "config.json").write_text(config.replace('"blue"', '"red"'))
    library.classify(colour_model, top=3, min_confidence=0)
    apart = tags_of(library)
    library.classify(mine, top=3, min_confidence=0)
    for photo in library.photos():
        merged = {t.name: t.confidence for t in library.tags(photo.photo_id) if t.classifier == "mine"}
        row = apart[photo.path]
        assert merged == pytest.approx({"red": row["red"] + row["blue"], "green": row["green"]}, abs=1e-6)


def test_filters_give_exactly_the_photos_that_brute_force_gives(
    library: Library, colours: Path, colour_model: Path
) -> None:
    library.classify(colour_model, top=2, min_confidence=0.05)
    tags, query, folder = tags_of(library), colours / "a" / "red-0.jpg", str(colours / "b")
    one = library.photo(1)
    assert one is not None
    own = {photo.path for photo in library.photos() if photo.content_id == one.content_id}
    sizes, every = set(), sorted(sure for row in tags.values() for sure in row.values())
    for tag, least in itertools.product([*COLOURS, "Red", "purple"], [0.0, *every[::3], 1.0]):
        wanted = {path for path, row in tags.items() if row.get(tag, -1) >= least}
        where = SearchFilter(tag=tag, min_confidence=least)
        assert {photo.path for photo in library.photos(where)} == wanted
        assert library.count_photos(where) == len(wanted)
        hits = library.search(query, k=50, where=where).hits
        assert {path for hit in hits for path in (hit.photo.path, *hit.copies)} == wanted
        inside = replace(where, under=folder)
        in_b = {path for path in wanted if path.startswith(folder)}
        assert {photo.path for photo in library.photos(inside)} == in_b
        assert {hit.photo.path for hit in library.similar(1, k=50, where=inside).hits} == in_b - own
        sizes.add(len(wanted))
    assert len(sizes) > 3


def test_only_under_a_folder(library: Library, colours: Path, colour_model: Path) -> None:
    report = library.classify(colour_model, under=colours / "a")
    assert report.classified == 6
    assert {os.path.dirname(p) for p, row in tags_of(library).items() if row and "copy" not in p} == {
        str(colours / "a")
    }
    assert library.classify(colour_model).classified == 6


def test_tags_go_with_the_photo(library: Library, colours: Path, colour_model: Path) -> None:
    library.classify(colour_model, top=1, min_confidence=0)
    (colours / "a" / "green-1.jpg").unlink()
    library.index(colours)
    assert library.tag_counts()["green"] == 3  # missing: not on disk
    with Image.open(colours / "a" / "green-4.jpg") as image:
        image.rotate(90).save(colours / "a" / "green-4.jpg")
    library.index(colours)
    assert library.tag_counts()["green"] == 2  # changed: another content, which has none yet
    assert library.classify(colour_model, top=1, min_confidence=0).classified == 1
    assert library.tag_counts()["green"] == 3
    assert library.check().ok


def test_a_moved_photo_keeps_its_tags(library: Library, colours: Path, colour_model: Path) -> None:
    library.classify(colour_model)
    before = tags_of(library)[str(colours / "a" / "blue-2.jpg")]
    (colours / "a" / "blue-2.jpg").rename(colours / "moved.jpg")
    library.index(colours)
    assert tags_of(library)[str(colours / "moved.jpg")] == before
    assert library.classify(colour_model).unchanged == 12


def test_bad_files_fail_alone_with_a_reason(library: Library, colours: Path, colour_model: Path) -> None:
    gone, changed = colours / "a" / "green-1.jpg", colours / "a" / "blue-5.jpg"
    gone.unlink()
    changed.write_bytes(changed.read_bytes() + b"more")
    (colours / "a" / "red-0.jpg").unlink()  # its copy is there
    report = library.classify(colour_model)
    assert (report.classified, report.failed) == (10, 2)
    reasons = {failure.path: failure.reason for failure in report.failures}
    assert set(reasons) == {str(gone), str(changed)}
    assert "index its folder again" in reasons[str(changed)]
    assert report.classified + report.failed == 12
    library.index(colours)
    assert library.classify(colour_model).failed == 0


def test_it_can_be_cancelled_and_goes_on(tmp_path: Path, library: Library, colour_model: Path) -> None:
    seen: list[int] = []
    with Library.open(tmp_path / "library", batch_size=4, device="cpu", precision="fp32") as small:
        report = small.classify(
            colour_model, on_progress=lambda moment: seen.append(moment.done), cancelled=lambda: seen[-1] >= 5
        )
        assert report.interrupted
        assert report.classified == 4  # whole batches
        assert small.jobs(1)[0].state == "cancelled"
        rest = small.classify(colour_model)
        assert (rest.classified, rest.unchanged) == (8, 4)


def test_the_run_is_recorded(library: Library, colour_model: Path) -> None:
    moments: list[Any] = []
    library.classify(colour_model, on_progress=moments.append, run_key="key")
    run = library.job("key")
    assert run is not None
    assert (run.kind, run.state) == ("classify", "done")
    assert run.arguments == {"model": str(colour_model), "top": 3, "min_confidence": 0.2, "folder": None}
    assert run.report is not None
    assert run.report["classified"] == 12
    assert {moment.phase for moment in moments} == {"scanning", "classifying", "done"}
    assert (moments[-1].done, moments[-1].total) == (12, 12)


def test_a_model_that_cannot_classify_leaves_all_as_it_was(library: Library, colour_model: Path) -> None:
    library.classify(colour_model)
    before = tags_of(library)
    with pytest.raises(CheckpointError, match="no classifier"):
        library.classify("vitmae-tiny-patch8-64", run_key="failed")
    with pytest.raises(ModelNotFound):
        library.classify("no-such-model")
    with pytest.raises(PluginError, match="cannot classify"):
        library.classify(colour_model, plugin="color_layout")
    assert tags_of(library) == before
    run = library.job("failed")
    assert run is not None
    assert run.state == "failed"
    assert "no classifier" in (run.error or "")


def test_what_fine_tuning_writes_can_classify(
    library: Library, colours: Path, tmp_path: Path, write_colour: Callable[..., Path]
) -> None:
    """Also with the head that only this project reads, on the mean of the patches."""
    import torch

    from vitmae_search.training import finetune

    for seed in range(100, 124):
        write_colour(tmp_path / "sorted" / COLOURS[seed % 3] / f"{seed}.jpg", COLOURS[seed % 3], seed)
    threads = torch.get_num_threads()
    try:
        finetune(
            tmp_path / "sorted",
            tmp_path / "tuned",
            mode="probe",
            options={"pooling": "mean", "epochs": 3.0, "threads": 1, "device": "cpu"},
        )
    finally:
        torch.set_num_threads(threads)
    report = library.classify(tmp_path / "tuned", top=1, min_confidence=0)
    assert (report.classified, set(report.labels)) == (12, set(COLOURS))
    for path, row in tags_of(library).items():
        if "copy" not in path:
            assert os.path.basename(path).startswith(next(iter(row)))


@pytest.mark.parametrize("wrong", [{"top": 0}, {"min_confidence": -0.1}, {"min_confidence": 1.1}])
def test_numbers_out_of_range(library: Library, colour_model: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"top=|min_confidence="):
        library.classify(colour_model, **wrong)


def test_an_empty_library_stays_uncreated(tmp_path: Path, colour_model: Path) -> None:
    with Library.open(tmp_path / "nothing") as empty:
        with pytest.raises(LibraryEmpty):
            empty.classify(colour_model)
        assert empty.tag_counts() == {}
    assert not (tmp_path / "nothing").exists()


PLUGIN = """
import numpy as np
from pathlib import Path
from vitmae_search.embedding import Classifier, EmbedderPlugin, PluginInfo

def prepare(image, /):
    return np.array(image.resize((8, 8)))

class Odd(Classifier):
    model, identity, provenance, input_size = "odd", {}, {}, 8
    labels = ["dark", "bright"]
    def __init__(self):
        self.prepare = prepare
    def classify(self, batch):
        BODY
        bright = batch.reshape(len(batch), -1).mean(axis=1, dtype=np.float32) / 255
        return np.stack([1 - bright, bright], axis=1).astype(np.float32)
    def close(self):
        pass

class Plugin(EmbedderPlugin):
    info = PluginInfo(name="odd", title="Odd", capabilities=frozenset({"embed", "classify"}))
    def open(self, options, *, device, precision):
        raise NotImplementedError
    def open_classifier(self, model, *, device, precision):
        return Odd()

plugin = Plugin()
"""


def with_plugin(tmp_path: Path, body: str) -> Library:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "odd.py").write_text(PLUGIN.replace("BODY", body))
    return Library.open(tmp_path / "library", plugin_folders=[tmp_path / "plugins"], batch_size=5)


def test_rows_stay_aligned_when_one_fails(library: Library, tmp_path: Path) -> None:
    """Batches that fail are tried row by row; one that does not fit into memory in halves."""
    body = (
        "if len(batch) > 2: raise MemoryError\n"
        "        if (batch.reshape(len(batch), -1, 3).mean(axis=1).argmax(axis=1) == 1).any():\n"
        "            raise ValueError('no greens')"
    )
    with with_plugin(tmp_path, body) as odd:
        report = odd.classify("any", plugin="odd", top=2, min_confidence=0)
        assert (report.classified, report.failed) == (8, 4)
        assert all("green" in failure.path and "no greens" in failure.reason for failure in report.failures)
        for path, row in tags_of(odd).items():
            if "green" in path:
                assert row == {}
                continue
            with Image.open(path) as image:
                bright = np.array(image.resize((8, 8))).mean() / 255
            assert row == pytest.approx({"bright": bright, "dark": 1 - bright}, abs=0.02)


def test_a_plugin_that_always_fails_is_one_error(library: Library, tmp_path: Path) -> None:
    with (
        with_plugin(tmp_path, "raise ValueError('never')") as odd,
        pytest.raises(PluginError, match=r"'odd'.*never"),
    ):
        odd.classify("any", plugin="odd")
    assert library.tag_counts() == {}


def test_a_kill_keeps_whole_batches(library: Library, tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    body = (
        f"if Path({str(reached)!r}).exists():\n"
        "            import time; time.sleep(600)\n"
        f"        Path({str(reached)!r}).touch()"
    )
    with_plugin(tmp_path, body).close()
    code = (
        "import sys; from vitmae_search.library import Library\n"
        "Library.open(sys.argv[1], plugin_folders=[sys.argv[2]], batch_size=5).classify('any', plugin='odd')"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "library"), str(tmp_path / "plugins")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline = time.monotonic() + 60
    while not library.tag_counts() and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    tagged = {photo.content_id for photo in library.photos() if library.tags(photo.photo_id)}
    assert len(tagged) == 5
    assert library.jobs(1)[0].state == "interrupted"
    with CatalogWriter.open_writer(tmp_path / "library", wait=5) as writer:
        assert writer.check() == []
    reached.unlink()
    (tmp_path / "plugins" / "odd.py").write_text(PLUGIN.replace("BODY", "pass"))
    with Library.open(tmp_path / "library", plugin_folders=[tmp_path / "plugins"]) as again:
        report = again.classify("any", plugin="odd")
        assert (report.classified, report.unchanged) == (7, 5)
