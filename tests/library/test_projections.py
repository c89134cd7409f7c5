"""Spaces derived by a projection: made of stored features, kept up to date, repaired."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.catalog import Catalog
from vitmae_search.embedding import Projection
from vitmae_search.errors import CheckpointError, LibraryEmpty, ModelError, SpaceError
from vitmae_search.library import Library
from vitmae_search.records import Space

PLUGIN = """
from pathlib import Path
import numpy as np
from vitmae_search.embedding import Embedder, EmbedderPlugin, PluginInfo

class Grid(Embedder):
    model, provenance, dimension, input_size, identity = "grid", {}, 48, 8, {"revision": REVISION}
    @property
    def projection(self):
        path = Path(__file__).with_name("head.safetensors")
        return str(path) if path.exists() else None
    def prepare(self, image): return np.asarray(image.resize((4, 4)))
    def embed(self, batch):
        with Path(__file__).with_name("embedded").open("a") as told: told.write("x" * len(batch))
        rows = batch.reshape(len(batch), -1) + 1.0 + REVISION
        return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)
    def close(self): pass

class Plugin(EmbedderPlugin):
    info = PluginInfo(name="grid", title="Grid", options={"side": 4})
    def open(self, options, *, device, precision): return Grid()

plugin = Plugin()
"""


def head(seed: int, width: int = 48, dimension: int = 7) -> Projection:
    random = np.random.default_rng(seed)
    weights = random.normal(size=(20, width)), random.normal(size=(dimension, 20))
    return Projection(
        weights, (random.normal(size=20) * 0.1, np.zeros(dimension)), "head", {"seed": str(seed)}
    )


class Grid:
    """A plugin in a folder, whose projection is a file beside it; and libraries that use it."""

    def __init__(self, home: Path) -> None:
        self.folder, self.library = home / "plugins", home / "grid-library"
        self.folder.mkdir()
        self.write()
        self.file = self.folder / "head.safetensors"

    def write(self, revision: int = 1) -> None:
        folder = self.folder if revision == 1 else self.folder.with_name(f"plugins-{revision}")
        folder.mkdir(exist_ok=True)
        (folder / "grid.py").write_text(PLUGIN.replace("REVISION", str(revision)), "utf-8")

    def open(self, projection: str | Path | Projection | None = None, **choice: str) -> Library:
        return Library.open(self.library, plugin_folders=[self.folder], projection=projection, **choice)

    def embedded(self) -> int:
        told = self.folder / "embedded"
        return len(told.read_text("utf-8")) if told.exists() else 0


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return Grid(tmp_path)


def everything(library: Library, space: Space) -> tuple[list[str], NDArray[np.float32]]:
    """The photos' paths and their vectors, from the catalogue."""
    with Catalog.open(library.folder) as catalog:
        photos = catalog.photos()
        vectors = [catalog.vector(space.space_id, photo.content_id) for photo in photos]
    assert all(vector is not None for vector in vectors)
    return [photo.path for photo in photos], np.stack(vectors)  # type: ignore[arg-type]


def assert_derived(library: Library, space: Space, projection: Projection) -> None:
    with Catalog.open(library.folder) as catalog:
        features = catalog.space(space.features_id)
    assert features.space_id != space.space_id
    _, stored = everything(library, space)
    np.testing.assert_allclose(stored, projection(everything(library, features)[1]), atol=1e-6)
    assert library.check().ok


def test_a_new_space_from_stored_features_without_reading_a_photo(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    projection = head(1, library.spaces()[0].dimension)
    projection.save(tmp_path / "head.safetensors")
    for path in photos.rglob("*.jpg"):
        path.rename(path.with_suffix(".away"))
    made = library.derive_space(tmp_path / "head.safetensors")
    assert (made.parent_id, made.projection, made.kind, made.vectors) == (1, projection.digest, "head", 12)
    assert made.provenance == {"seed": "1", "kind": "head"}
    assert made.current
    assert_derived(library, made, projection)
    files = {path.name for path in (library.folder / "projections").iterdir()}
    assert files == {f"{projection.digest}.safetensors"}
    (tmp_path / "head.safetensors").unlink()
    assert library.status().spaces[1] == made


def test_search_in_a_derived_space_equals_brute_force(
    library: Library, photos: Path, tmp_path: Path, real_photos: dict[str, Path]
) -> None:
    projection = head(1, library.spaces()[0].dimension)
    features = library.spaces()[0]
    made = library.derive_space(projection)
    paths, vectors = everything(library, made)
    unknown = Image.open(real_photos["coffee"])
    asked = library.search(unknown, k=12)
    with Library.open(library.folder, embedder="color_layout") as other:  # its features, by its own door
        embedder = other._embedders.for_space(features)
        query = projection(embedder.embed(embedder.prepare(unknown.convert("RGB"))[None]))[0]
    scores = vectors.astype(np.float64) @ query
    order = np.argsort(-scores)
    assert [hit.photo.path for hit in asked.hits] == [paths[i] for i in order]
    np.testing.assert_allclose([hit.score for hit in asked.hits], scores[order], atol=1e-5)
    assert not asked.known
    assert asked.space == made
    for photo in (photos / "odd" / "1.jpg", photos / "even" / "4.jpg"):
        found = library.search(photo, k=12)
        assert found.known
        assert found.hits[0].photo.path == str(photo)
        scores = vectors.astype(np.float64) @ vectors[paths.index(str(photo))]
        np.testing.assert_allclose([hit.score for hit in found.hits], -np.sort(-scores), atol=1e-5)


def test_deriving_and_searching_for_a_known_photo_need_no_torch(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    head(1, library.spaces()[0].dimension).save(tmp_path / "head.safetensors")
    code = """
import json, sys
from vitmae_search import Library
with Library.open(sys.argv[1]) as library:
    space = library.derive_space(sys.argv[2])
    hits = library.search(sys.argv[3]).hits
    assert library.check().ok
print(json.dumps([space.space_id, hits[0].photo.path, "torch" in sys.modules]))
"""
    words = [library.folder, tmp_path / "head.safetensors", photos / "odd" / "3.jpg"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [2, str(photos / "odd" / "3.jpg"), False]


# Which space -----------------------------------------------------------------------------------------------


def test_a_new_library_searches_in_what_the_models_own_projection_makes(grid: Grid, photos: Path) -> None:
    head(1).save(grid.file)
    with grid.open(embedder="grid") as library:
        report = library.index(photos)
        features, derived = library.spaces()
    assert (features.current, derived.current, report.space) == (False, True, derived.space_id)
    assert derived.projection == head(1).digest
    with grid.open() as library:  # no word of a model: the current space
        assert library.index(photos).space == derived.space_id
        assert library.search(Image.new("RGB", (9, 9))).space.space_id == derived.space_id
        assert_derived(library, library.spaces()[1], head(1))
        files = {path.stem for path in (grid.library / "vectors").glob("*.vectors")}
        assert files == {derived.fingerprint}, "an index file for the space that is searched alone"


def test_none_and_a_file_choose_among_the_spaces_of_the_current_features(
    grid: Grid, photos: Path, tmp_path: Path
) -> None:
    head(1).save(grid.file)
    with grid.open(embedder="grid") as library:
        library.index(photos)
    with grid.open("none") as library:
        assert library.index(photos).space == 1
        assert library.search(photos / "odd" / "1.jpg").space.space_id == 1
        assert library.search(Image.new("RGB", (9, 9))).space.space_id == 1
    head(2).save(tmp_path / "other.safetensors")
    with grid.open(tmp_path / "other.safetensors") as library:
        with pytest.raises(SpaceError, match="this projection yet; run `index`"):
            library.search(photos / "odd" / "1.jpg")
        report = library.index(photos)
        assert (report.space, report.unchanged) == (3, 12)
        assert library.search(Image.new("RGB", (9, 9))).space.projection == head(2).digest
        assert_derived(library, library.spaces()[2], head(2))
    assert [space.current for space in library.spaces()] == [False, True, False]
    with grid.open("none", embedder="grid") as library:
        assert library.search(photos / "odd" / "1.jpg").space.space_id == 1
    with grid.open(head(1), embedder="grid") as library:
        assert library.search(photos / "odd" / "1.jpg").space.space_id == 2
    assert grid.embedded() == 12 + 2 * 4, "each photo once, and the two queries in four orientations"


def test_none_in_a_new_library_keeps_the_features_alone(grid: Grid, photos: Path) -> None:
    head(1).save(grid.file)
    with grid.open("none", embedder="grid") as library:
        library.index(photos)
        [features] = library.spaces()
    assert features.current
    assert not (grid.library / "projections").exists()
    with grid.open() as library:
        assert library.index(photos).space == 1, "what a person chose stays so"
        assert len(library.spaces()) == 1


def test_a_library_without_projection_goes_on_as_it_is(grid: Grid, photos: Path, write_photo) -> None:  # type: ignore[no-untyped-def]
    with grid.open(embedder="grid") as library:
        library.index(photos)
    head(1).save(grid.file)  # the plugin learnt of projections since
    write_photo(photos / "odd" / "new.jpg", 77)
    with grid.open() as library:
        assert library.index(photos).space == 1
        [features] = library.spaces()
        assert features.current
        before = grid.embedded()
        made = library.derive_space(None)
        assert (made.projection, made.vectors, grid.embedded()) == (head(1).digest, 13, before)
        assert library.search(photos / "odd" / "new.jpg").space == made
        assert_derived(library, made, head(1))


def test_a_named_model_takes_its_own_projection_and_leaves_the_current_space(
    grid: Grid, photos: Path
) -> None:
    with grid.open(embedder="grid") as library:
        library.index(photos)
    head(1).save(grid.file)
    with grid.open(embedder="grid") as library:
        report = library.index(photos)
        assert (report.space, report.unchanged, grid.embedded()) == (2, 12, 12)
        assert [space.current for space in library.spaces()] == [True, False]
        assert library.search(photos / "odd" / "1.jpg").space.space_id == 2
    with grid.open() as library:
        assert library.search(photos / "odd" / "1.jpg").space.space_id == 1


def test_every_index_run_brings_all_derived_spaces_along(grid: Grid, photos: Path, write_photo) -> None:  # type: ignore[no-untyped-def]
    head(1).save(grid.file)
    with grid.open(embedder="grid") as library:
        library.index(photos)
        library.derive_space(head(2), use=False)
    write_photo(photos / "odd" / "new.jpg", 77)
    (photos / "odd" / "1.jpg").rename(photos / "even" / "moved.jpg")
    (photos / "odd" / "3.jpg").unlink()
    (photos / "odd" / "5.jpg").write_text("broken", "utf-8")
    with grid.open() as library:
        report = library.index(photos)
        assert (report.added, report.moved, report.missing, report.failed) == (1, 1, 1, 1)
        for space, projection in zip(library.spaces()[1:], (head(1), head(2)), strict=True):
            assert_derived(library, space, projection)
            assert len(library.failures(space.space_id)) == 1
        assert library.status().failed == 1


def test_a_changed_model_gets_a_derived_space_of_its_own(grid: Grid, photos: Path) -> None:
    head(1).save(grid.file)
    with grid.open(embedder="grid") as library:
        library.index(photos)
    grid.write(revision=2)
    head(2).save(grid.folder.with_name("plugins-2") / "head.safetensors")
    with Library.open(grid.library, plugin_folders=[grid.folder.with_name("plugins-2")]) as library:
        assert library.search(photos / "odd" / "1.jpg").known
        with pytest.raises(SpaceError, match="has changed"):
            library.search(Image.new("RGB", (9, 9)))
        report = library.index(photos)
        spaces = library.spaces()
        assert [space.parent_id for space in spaces] == [None, 1, None, 3]
        assert (report.space, report.added) == (4, 12)
        assert spaces[3].projection == head(2).digest
        assert_derived(library, spaces[3], head(2))
        assert spaces[1].current


# What is refused -------------------------------------------------------------------------------------------


def test_an_impossible_derivation_is_an_error(library: Library, tmp_path: Path) -> None:
    width = library.spaces()[0].dimension
    with pytest.raises(ModelError, match=f"takes features of dimension {width + 1}, and these have {width}"):
        library.derive_space(head(1, width + 1))
    with pytest.raises(ModelError, match="no such projection file"):
        library.derive_space(tmp_path / "none.safetensors")
    with pytest.raises(SpaceError, match="has no projection of its own for these features; name a file"):
        library.derive_space(None)
    made = library.derive_space(head(1, width))
    assert library.derive_space(head(1, width)) == made
    with pytest.raises(SpaceError, match=r"derived itself.* in space 1"):
        library.derive_space(head(2, width), parent=made.space_id)
    assert library.derive_space(head(2, width)).parent_id == 1, "from the current space's features"
    with pytest.raises(SpaceError, match="no space 9"):
        library.derive_space(head(2, width), parent=9)
    assert len(library.spaces()) == 3
    (tmp_path / "none.safetensors").write_text("no", "utf-8")
    with pytest.raises(CheckpointError, match=r"none\.safetensors is not a projection file"):
        Library.open(tmp_path / "library", projection=tmp_path / "none.safetensors")
    with Library.open(tmp_path / "empty") as empty, pytest.raises(LibraryEmpty):
        empty.derive_space(head(1))


def test_a_models_own_projection_that_does_not_fit_is_an_error(grid: Grid, photos: Path) -> None:
    head(1, 49).save(grid.file)
    with grid.open(embedder="grid") as library:
        with pytest.raises(ModelError, match=r"head\.safetensors: .* of dimension 49, and these have 48"):
            library.index(photos)
        assert library.spaces() == []


def test_dropping(grid: Grid, photos: Path) -> None:
    head(1).save(grid.file)
    with grid.open(embedder="grid") as library:
        library.index(photos)
        library.index(photos / "odd")
        with pytest.raises(SpaceError, match="holds the features of space 2; drop space 2 first"):
            library.drop_space(1)
        file = grid.library / "projections" / f"{head(1).digest}.safetensors"
        assert file.exists()
        library.drop_space(2)
        assert not file.exists()
        assert not list((grid.library / "vectors").glob("*.vectors"))
        assert [space.current for space in library.spaces()] == [True]
        library.drop_space(1)
        assert library.spaces() == []


def test_a_projection_that_another_space_needs_stays(grid: Grid, photos: Path) -> None:
    with grid.open(head(1), embedder="grid") as library:
        library.index(photos)
    with grid.open(head(1), embedder="grid", decode="exact") as library:
        library.index(photos)
        assert [space.parent_id for space in library.spaces()] == [None, 1, None, 3]
        library.drop_space(2)
        assert library.check().ok
        assert library.search(Image.new("RGB", (9, 9))).space.space_id == 4


# Damage ----------------------------------------------------------------------------------------------------


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


DAMAGE: dict[str, Callable[[Path], None]] = {
    "missing": lambda path: path.unlink(),
    "truncated": _truncate,
    "another": lambda path: head(5).save(path),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_lost_projection_is_reported_and_restored_from_its_model(
    grid: Grid, photos: Path, write_photo, damage: Callable[[Path], None]
) -> None:  # type: ignore[no-untyped-def]
    head(1).save(grid.file)
    with grid.open(embedder="grid") as library:
        library.index(photos)
    damage(grid.library / "projections" / f"{head(1).digest}.safetensors")
    write_photo(photos / "new.jpg", 50)
    with grid.open() as library:
        assert library.search(photos / "odd" / "1.jpg").hits, "a known photo needs no projection"
        for act in (lambda: library.search(Image.new("RGB", (9, 9))), lambda: library.index(photos)):
            with pytest.raises(
                SpaceError, match=r"Space 2 lacks its projection: .* `vitmae-search check --r"
            ):
                act()
        assert library.status().photos == 12
        report = library.check()
        assert not report.ok
        [problem] = report.problems
        assert problem.startswith("Space 2 lacks its projection")
        report = library.check(repair=True)
        assert report.repaired == ("restored the projection of space 2 from its model",)
        assert report.ok
        assert library.check().problems == ()
        assert library.index(photos).added == 1
        assert_derived(library, library.spaces()[1], head(1))


def test_a_lost_projection_that_came_with_no_model_is_not_repaired(grid: Grid, photos: Path) -> None:
    head(1).save(grid.file)
    with grid.open(embedder="grid") as library:
        library.index(photos)
        made = library.derive_space(head(2))
    file = grid.library / "projections" / f"{head(2).digest}.safetensors"
    content = file.read_bytes()
    file.unlink()
    with grid.open() as library:
        report = library.check(repair=True)
        assert (report.ok, report.repaired) == (False, ())
        with pytest.raises(SpaceError, match=f"vitmae-search spaces drop {made.space_id}"):
            library.index(photos)
        file.write_bytes(content)
        assert library.check().ok
        library.index(photos)
        file.unlink()
        library.drop_space(made.space_id)
        assert library.check().ok


def test_derived_vectors_that_were_spoilt_are_derived_again(grid: Grid, photos: Path) -> None:
    import sqlite3

    head(1).save(grid.file)
    with grid.open(embedder="grid") as library:
        library.index(photos)
    raw = sqlite3.connect(grid.library / "catalogue.sqlite3")
    raw.execute("DELETE FROM embeddings WHERE space_id = 2 AND content_id IN (2, 3)")
    other = "SELECT vector FROM embeddings WHERE space_id = 2 AND content_id = 4"
    raw.execute(f"UPDATE embeddings SET vector = ({other}) WHERE space_id = 2 AND content_id = 5")
    raw.commit()
    raw.close()
    with grid.open() as library:
        problems = library.check().problems
        assert [text for text in problems if "2 contents" in text]
        assert [text for text in problems if "its projection does not give" in text]
        assert library.check(repair=True).ok
        assert_derived(library, library.spaces()[1], head(1))
        for path in photos.rglob("*.jpg"):
            assert library.search(path).hits[0].photo.path == str(path)
