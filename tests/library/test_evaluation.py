"""`Library.evaluate`: what is measured of which methods, and what is reported where that cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitmae_search.embedding import GuardedEmbedder, PluginHost, Projection, open_embedder
from vitmae_search.errors import EvaluationError, LabelsError, ModelError
from vitmae_search.evaluation import INSTANCE_VIEWS, Evaluation, duplicate_scores
from vitmae_search.library import Library
from vitmae_search.library.evaluation import Candidate, calibrate_projection, evaluate_folder
from vitmae_search.records import JobProgress

WriteColour = Callable[[Path, str, int], Path]

BASELINES = ["colour histogram, 8³ bins", "raw pixels, 32 × 32", "raw grey pixels, 32 × 32"]
HASH = "perceptual hash, 64 bits"

RANDOM = """
import zlib
import numpy as np
from vitmae_search.embedding import Embedder, EmbedderPlugin, PluginInfo

def prepare(image, /):
    return np.array(image.convert("RGB").resize((8, 8)))

class Random(Embedder):
    model, identity, provenance, dimension, input_size = "random", {}, {}, 16, 8
    prepare = staticmethod(prepare)

    def embed(self, batch):
        draws = [np.random.default_rng(zlib.crc32(row.tobytes())) for row in batch]
        rows = np.stack([draw.standard_normal(16) for draw in draws])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def close(self):
        pass

class Plugin(EmbedderPlugin):
    info = PluginInfo(name="random", title="Chance", options={"loud": False})

    def open(self, options, *, device, precision):
        return Random()

plugin = Plugin()
"""


@pytest.fixture
def colours(tmp_path: Path, write_colour: WriteColour) -> Path:
    """Thirty photos, ten of each colour, in the folders red, green and blue."""
    for seed in range(30):
        colour = ("red", "green", "blue")[seed % 3]
        write_colour(tmp_path / "photos" / colour / f"{seed}.jpg", colour, seed)
    return tmp_path / "photos"


@pytest.fixture
def layout() -> Iterator[GuardedEmbedder]:
    with open_embedder(PluginHost().get("color_layout")) as embedder:
        yield embedder


@pytest.fixture
def chance(tmp_path: Path) -> Iterator[GuardedEmbedder]:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/random.py").write_text(RANDOM)
    with open_embedder(PluginHost([tmp_path / "plugins"]).get("random")) as embedder:
        yield embedder


def named(found: Evaluation) -> dict[str, Any]:
    return {method.name: method for method in found.methods}


def test_a_good_and_a_random_embedder_bound_the_figures(
    colours: Path, layout: GuardedEmbedder, chance: GuardedEmbedder
) -> None:
    found = evaluate_folder(colours, [Candidate.of(chance), Candidate.of(layout)], instances=20)
    assert (found.photos, found.classes, found.queries, found.instances) == (30, 3, 30, 20)
    methods = named(found)
    both = ("random", "color-layout")
    named_both = [name + suffix for name in both for suffix in ("", ", without variants")]
    assert list(methods) == [*named_both, *BASELINES, HASH]
    assert all(methods[name].neighbours == {} for name in named_both[1::2])
    good, bad = methods["color-layout"], methods["random"]
    assert good.neighbours["P@1"].value == good.neighbours["20-NN"].value == 1
    # Nine of the other 29 have the colour, so no first ten can be all right.
    assert good.neighbours["P@10"].value == pytest.approx(0.9)
    assert 0.15 < bad.neighbours["P@10"].value < 0.45
    assert good.instances["crop-80"]["recall@10"].value > 0.8
    bad = methods["random, without variants"]  # a search undoes some changes to the pixel
    assert bad.instances["all"]["recall@1"].value < 0.15
    assert bad.duplicates is not None
    assert bad.duplicates.average_precision.value < 0.2
    assert methods[HASH].neighbours == {}
    assert methods[HASH].instances["jpeg-20"]["recall@1"].value > 0.9
    for method in found.methods:
        figures = [*method.neighbours.values(), *(f for k in method.instances.values() for f in k.values())]
        assert all(0 <= f.low <= f.value + 1e-9 and f.value - 1e-9 <= f.high <= 1 for f in figures)
        assert len(method.instances) == len(INSTANCE_VIEWS) + 1


def test_the_same_again_gives_the_same_and_another_seed_other_photos(
    colours: Path, layout: GuardedEmbedder
) -> None:
    def run(seed: int) -> dict[str, Any]:
        found = evaluate_folder(
            colours, [Candidate.of(layout)], instances=6, limit=20, seed=seed, batch_size=7
        )
        return found.as_json() | {"seconds": 0}

    first = run(0)
    assert run(0) == first
    assert run(1)["methods"] != first["methods"]
    assert (first["photos"], first["instances"]) == (20, 6)


def test_a_projection_has_a_row_of_its_own(colours: Path, layout: GuardedEmbedder) -> None:
    width = layout.dimension
    blind = Projection([np.zeros((3, width), np.float32)], [np.ones(3, np.float32)], "head")
    found = evaluate_folder(colours, [Candidate.of(layout, blind)], instances=10)
    projected, _, features = found.methods[:3]
    assert (projected.name, projected.dimension) == ("color-layout + head", 3)
    assert (features.name, features.dimension) == ("color-layout", width)
    assert projected.instances["all"]["recall@1"].value == pytest.approx(0.1)
    assert features.instances["all"]["recall@1"].value > 0.5
    with pytest.raises(ModelError):
        Candidate.of(layout, Projection([np.ones((2, 5), np.float32)], [np.ones(2, np.float32)], "head"))


def test_changes_that_a_search_undoes_are_found_by_its_variants(
    pieces: Path, layout: GuardedEmbedder
) -> None:
    found = evaluate_folder(pieces, [Candidate.of(layout)], instances=30)
    searched, as_it_is = found.methods[:2]
    for kind in ("rotated+90", "rotated-90", "screenshot-black", "screenshot-white", "margin"):
        found_by_search = searched.instances[kind]["recall@1"].value
        assert found_by_search > 0.9, kind
        if kind.startswith("screenshot"):
            assert as_it_is.instances[kind]["recall@1"].value < 0.7
    assert searched.instances["jpeg-20"] == as_it_is.instances["jpeg-20"]
    without = evaluate_folder(pieces, [Candidate.of(layout)], instances=30, variants=False)
    assert without.methods[0].name == "color-layout"
    assert without.methods[0].instances == as_it_is.instances
    assert (found.variants, without.variants) == (True, False)


def test_a_projection_gets_its_calibration_and_keeps_its_vectors(
    colours: Path, layout: GuardedEmbedder, tmp_path: Path
) -> None:
    plain = Projection([np.eye(layout.dimension)], [np.zeros(layout.dimension)], "head")
    plain.save(tmp_path / "head.safetensors")
    few = evaluate_folder(colours, [Candidate.of(layout, plain)], instances=20)
    with pytest.raises(EvaluationError, match="100 photos"):
        calibrate_projection(tmp_path / "head.safetensors", few)
    gallery = np.random.default_rng(0).standard_normal((120, 12)).astype(np.float32)
    measured = replace(few.methods[0], duplicates=duplicate_scores(gallery, gallery[None]))
    enough = replace(few, methods=(measured, *few.methods[1:]))
    calibrate_projection(tmp_path / "head.safetensors", enough)
    calibrated = Projection.read(tmp_path / "head.safetensors")
    assert calibrated.digest == plain.digest
    assert calibrated.calibration == enough.calibration
    assert enough.calibration is not None
    assert (enough.calibration.same, enough.calibration.photos) == (1.0, 120)


def test_a_csv_chooses_the_photos_and_their_classes(colours: Path, layout: GuardedEmbedder) -> None:
    table = colours / "labels.csv"
    table.write_text("path,label\nred/0.jpg,x\nred/3.jpg,x\nblue/2.jpg,y\n")
    found = evaluate_folder(colours, [Candidate.of(layout)], labels=table, instances=0)
    assert (found.photos, found.classes, found.queries, found.instances) == (3, 2, 2, 0)
    assert found.methods[0].instances == {}
    assert found.methods[0].duplicates is None
    assert HASH not in named(found)
    table.write_text("path,label\nred/0.jpg,x\nred/gone.jpg,x\n")
    with pytest.raises(LabelsError, match=r"line 3: red/gone\.jpg"):
        evaluate_folder(colours, [Candidate.of(layout)], labels=table)


def test_unreadable_files_and_copies_are_reported(colours: Path, layout: GuardedEmbedder) -> None:
    (colours / "red/broken.jpg").write_bytes(b"no picture")
    (colours / "loose.jpg").write_bytes((colours / "red/0.jpg").read_bytes())
    (colours / "blue/copy.jpg").write_bytes((colours / "blue/2.jpg").read_bytes())
    found = evaluate_folder(colours, [Candidate.of(layout)], instances=2)
    assert [Path(failure.path).name for failure in found.failures] == ["broken.jpg"]
    assert found.copies == 2
    assert (found.photos, found.queries, found.unlabelled) == (30, 30, 0)  # the loose one is the copy
    assert "broken.jpg" in found.markdown()


def test_few_photos_and_classes_of_one(
    tmp_path: Path, write_colour: WriteColour, layout: GuardedEmbedder
) -> None:
    for seed, name in enumerate(("red/0.jpg", "red/1.jpg", "green/2.jpg", "blue/3.jpg", "loose.jpg")):
        write_colour(tmp_path / name, name.partition("/")[0] if "/" in name else "red", seed)
    found = evaluate_folder(tmp_path, [Candidate.of(layout)])
    assert (found.photos, found.queries, found.unlabelled, found.instances) == (5, 2, 1, 5)
    assert found.methods[0].neighbours["P@1"].value == 1
    assert found.methods[0].neighbours["P@10"].value == pytest.approx(1 / 3)
    said = " ".join(found.notes)
    assert "3 other photos" in said
    assert "2 photos are alone in their class" in said


@pytest.mark.parametrize(("folders", "said"), [(("",), "no classes"), (("one/",), "takes two classes")])
def test_without_classes_changed_photos_are_looked_for(
    tmp_path: Path, write_colour: WriteColour, layout: GuardedEmbedder, folders: tuple[str, ...], said: str
) -> None:
    for seed in range(4):
        write_colour(tmp_path / f"{folders[0]}{seed}.jpg", "red", seed)
    found = evaluate_folder(tmp_path, [Candidate.of(layout)])
    assert (found.queries, found.instances) == (0, 4)
    assert said in found.notes[0]
    assert [table.header[0] for table in found.tables()] == ["change", "change", "features"]
    with pytest.raises(EvaluationError, match=said):
        evaluate_folder(tmp_path, [Candidate.of(layout)], instances=0)


def test_nothing_to_measure_on_is_one_sentence(tmp_path: Path, layout: GuardedEmbedder) -> None:
    with pytest.raises(EvaluationError, match="no photos under"):
        evaluate_folder(tmp_path, [Candidate.of(layout)])
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(EvaluationError, match=r"0 photos: .*a\.jpg"):
        evaluate_folder(tmp_path, [Candidate.of(layout)])


def test_a_name_says_which_options_are_not_the_defaults(layout: GuardedEmbedder) -> None:
    assert Candidate.of(layout).name == "color-layout"
    with open_embedder(PluginHost().get("color_layout"), {"histogram": "no"}) as other:
        assert Candidate.of(other).name == "color-layout-only, histogram False"


def test_a_library_evaluates_what_it_would_search_with(colours: Path, tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", embedder="color_layout", options={"histogram": "no"}) as library:
        library.index(colours)
    with Library.open(tmp_path / "library") as library:
        found = library.evaluate(colours, instances=4)
        before = sorted((tmp_path / "library").rglob("*"))
    assert found.methods[0].name == "color-layout-only, histogram False"
    assert sorted((tmp_path / "library").rglob("*")) == before


def test_the_default_model_is_compared_with_its_untrained_network(
    tmp_path: Path, real_photos: dict[str, Path]
) -> None:
    for name in ("astronaut", "coffee", "chelsea", "rocket", "china"):
        Image.open(real_photos[name]).convert("RGB").resize((96, 96)).save(tmp_path / f"{name}.png")
    moments: list[JobProgress] = []
    with Library.open(tmp_path / "library") as library:
        found = library.evaluate(tmp_path, instances=3, on_progress=moments.append)
    names = [method.name for method in found.methods]
    twin = names.index("color_layout") - 1
    assert names[twin].endswith(", untrained")
    assert names[twin].removesuffix(", untrained") in names[:twin]
    assert names[1] == f"{names[0]}, without variants"
    assert names[twin + 1 :] == ["color_layout", *BASELINES, HASH]
    trained, untrained = (found.methods[row].duplicates for row in (0, twin))
    assert trained is not None
    assert untrained is not None
    assert trained.scores.tolist() != untrained.scores.tolist()
    assert [moment.phase for moment in moments][:: len(moments) - 1] == ["scanning", "done"]
    assert {moment.phase for moment in moments} == {"scanning", "evaluating", "finishing", "done"}
    json.dumps(found.as_json())
