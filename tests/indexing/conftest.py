"""A small real set-up: a folder of photos, a catalogue, and an embedder of a few lines behind the guard."""

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.shrink import SIDE, shrink
from vitmae_search.catalog import CatalogWriter, Derivation
from vitmae_search.embedding import (
    Embedder,
    EmbedderPlugin,
    PluginInfo,
    Projection,
    derived_fingerprint,
    open_embedder,
)
from vitmae_search.errors import PhotoError
from vitmae_search.indexing import IndexTarget, batcher, index_folders, moved_photos, walk
from vitmae_search.photos import ThumbnailStore, decode, decode_target, digest, is_under, scan
from vitmae_search.photos.decode_pool import DecodePool
from vitmae_search.photos.worker_process import LocalWorker
from vitmae_search.vectors import VectorCache

batcher._MAX_WAIT = math.inf  # batches are whole, however slow the machine


def head(seed: int, dimension: int = 10) -> Projection:
    """A projection of the tiny embedder's features that its seed decides."""
    random = np.random.default_rng(seed)
    weights = random.normal(size=(16, SIDE * SIDE * 3)), random.normal(size=(dimension, 16))
    return Projection(weights, (np.zeros(16), np.zeros(dimension)), "head")


class TinyEmbedder(Embedder):
    """The picture at 6×6 as its vector. Counts the rows that it was given."""

    model = "tiny"
    dimension = SIDE * SIDE * 3
    input_size = 24

    def __init__(self, plugin, revision):
        self.plugin = plugin
        self.identity = {"revision": revision}
        self.provenance = {"device": "cpu"}

    prepare = staticmethod(shrink)

    def embed(self, batch):
        for row in batch:
            self.plugin.before_row(row)
        self.plugin.rows += len(batch)
        flat = batch.reshape(len(batch), -1).astype(np.float32) + 1
        return np.ascontiguousarray(flat / np.sqrt((flat * flat).sum(axis=1, keepdims=True)))

    def close(self):
        pass


class TinyPlugin(EmbedderPlugin):
    info = PluginInfo(name="tiny", title="Tiny", options={"revision": 1})

    def __init__(self):
        self.rows = 0
        self.before_row = lambda row: None

    def open(self, options, *, device, precision):
        return TinyEmbedder(self, options["revision"])


class Bench:
    """A folder, a library, and runs over them, each of which is checked.

    Attributes:
        decodes_here: Decode in threads of this process, where a test watches or changes what is called.
        address: Of the database that has the catalogue; None is a file.
    """

    def __init__(self, home: Path) -> None:
        self.photos = home / "photos"
        self.library = home / "library"
        self.photos.mkdir(exist_ok=True)
        self.plugin = TinyPlugin()
        self.revision = 1
        self.opened = 0
        self.heads: list[Projection] = []
        self.plugin_code = ""
        self.decodes_here = False
        self.address: str | None = None

    def open_space(self, catalog):
        self.opened += 1
        embedder = open_embedder(self.plugin, {"revision": self.revision})
        space = catalog.ensure_space(
            fingerprint=embedder.fingerprint("scaled"),
            plugin="tiny",
            model=embedder.model,
            dimension=embedder.dimension,
            decode="scaled",
            options=embedder.options,
            identity=embedder.identity,
            provenance=embedder.provenance,
        )
        derived = [self.derive(catalog, space, head) for head in self.heads]
        projections = {head.digest: head for head in self.heads}
        searched = derived[-1] if derived else space
        return IndexTarget(lambda: embedder, space, searched, projections, self.plugin_code)

    def derive(self, catalog, features, head):
        fingerprint = derived_fingerprint(features.fingerprint, head.digest)
        derivation = Derivation(fingerprint, head.digest, head, head.dimension, {}, {})
        return catalog.derive_space(features.space_id, derivation)

    def index(self, *folders, **options):
        """Index (default: the photo folder) and check what holds after every run."""
        before = self.plugin.rows
        options = {"batch_size": 4, "workers": 2} | options
        with pytest.MonkeyPatch.context() as patch, self.catalog() as catalog:
            if self.decodes_here:
                patch.setattr(DecodePool, "_start", lambda pool: LocalWorker(pool._make_handler()))
            report = index_folders(
                catalog,
                [os.fspath(folder) for folder in folders or (self.photos,)],
                open_target=lambda: self.open_space(catalog),
                vectors=VectorCache(self.library / "vectors"),
                thumbnails=ThumbnailStore(self.library / "thumbnails"),
                **options,
            )
        self.embedded = self.plugin.rows - before
        counted = (report.added, report.updated, report.moved, report.unchanged, report.failed)
        assert report.found == sum(counted)
        assert len(report.failures) == report.failed
        return report

    def catalog(self):
        return CatalogWriter.open_writer(self.library, self.address)

    def vector_of(self, data: bytes):
        """The vector that these bytes must have, alone; None for what cannot be decoded."""
        embedder = open_embedder(self.plugin, {"revision": self.revision})
        try:
            image = decode(data, shrink_to=decode_target("scaled", embedder.input_size)).image
        except PhotoError:
            return None
        rows, hook = self.plugin.rows, self.plugin.before_row
        self.plugin.before_row = lambda row: None
        vector = embedder.embed(embedder.prepare(image)[None])[0]
        self.plugin.rows, self.plugin.before_row = rows, hook
        return vector

    def assert_mirrors_disk(self, *folders: Path) -> None:
        """The catalogue is what a look at every file says, vector by vector, and so is the index file."""
        wanted, broken = {}, set()
        for folder in folders or (self.photos,):
            for path in folder.rglob("*.jpg"):
                data = path.read_bytes()
                vector = self.vector_of(data)
                if vector is None:
                    broken.add(os.fspath(path))
                else:
                    wanted[os.fspath(path)] = (digest(data), vector, path.stat())
        with self.catalog() as catalog:
            space = catalog.space_of(self.fingerprint())
            photos = {photo.path: photo for photo in catalog.photos()}
            assert photos.keys() == wanted.keys()
            for path, (name, vector, status) in wanted.items():
                photo = photos[path]
                assert photo.digest == name
                assert (photo.size, photo.mtime_ns) == (status.st_size, status.st_mtime_ns)
                assert np.array_equal(catalog.vector(space.space_id, photo.content_id), vector)
            assert {failure.path for failure in catalog.failures(space.space_id)} == broken
            self.assert_in_step(catalog, space)
            searched = catalog.derived_spaces(space.space_id)[-1:] or [space]
            source = catalog.vector_source(searched[0].space_id)
            cache = VectorCache(self.library / "vectors")
            assert cache.verify(source)
            assert len(cache.open(source)) == catalog.space(space.space_id).vectors

    def assert_in_step(self, catalog, features) -> None:
        """Each derived vector is the projection of the feature of the same content."""
        projections = {head.digest: head for head in self.heads}
        assert catalog.check(projections) == []
        derived = catalog.derived_spaces(features.space_id)
        assert {space.projection for space in derived} == set(projections)
        contents = {photo.content_id for photo in catalog.photos(missing=None)}
        for space in derived:
            for content in contents:
                feature = catalog.vector(features.space_id, content)
                vector = catalog.vector(space.space_id, content)
                assert (vector is None) == (feature is None)
                if feature is not None:
                    due = projections[space.projection](feature[None])[0]
                    np.testing.assert_allclose(vector, due, atol=1e-6)

    def fingerprint(self) -> str:
        return open_embedder(self.plugin, {"revision": self.revision}).fingerprint("scaled")

    def missing(self) -> set[str]:
        with self.catalog() as catalog:
            return {photo.path for photo in catalog.photos(missing=True)}


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(scope="session")
def new_head() -> Callable[[int], Projection]:
    return head


@pytest.fixture(scope="session")
def new_plugin() -> type[TinyPlugin]:
    return TinyPlugin


@pytest.fixture
def new_bench(tmp_path_factory) -> Callable[[], Bench]:
    return lambda: Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="session")
def jpegs(tmp_path_factory) -> Callable[[int], bytes]:
    """The bytes of a small JPEG that its number decides."""
    made: dict[int, bytes] = {}
    folder = tmp_path_factory.mktemp("jpegs")

    def make(number: int) -> bytes:
        if number not in made:
            rows = np.random.default_rng(number).integers(0, 256, (5, 7, 3), dtype=np.uint8)
            path = folder / f"{number}.jpg"
            Image.fromarray(rows).resize((70, 50), Image.Resampling.BICUBIC).save(path, quality=90)
            made[number] = path.read_bytes()
        return made[number]

    return make


@pytest.fixture
def fill(bench, jpegs) -> Callable[..., list[Path]]:
    """Write photos 0 to `count` - 1 as 000.jpg and so on, and return their paths."""

    def write(count: int, start: int = 0, folder: Path | None = None) -> list[Path]:
        folder = folder or bench.photos
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{number:03}.jpg" for number in range(start, start + count)]
        for number, path in enumerate(paths, start):
            path.write_bytes(jpegs(number))
        return paths

    return write


@pytest.fixture
def on_device(monkeypatch):
    """Pretend that what lies under a folder is on another device, as `stat` would say."""
    numbers: dict[str, int] = {}

    def device_of(path, real):
        under = [folder for folder in numbers if is_under(os.path.abspath(path), folder)]
        return numbers[max(under, key=len)] if under else real

    def pretending(root, **options):
        for one in scan(root, **options):
            yield replace(one, device=device_of(one.path, one.device))

    real_device = walk.device_of

    def device(path):
        real = real_device(path)
        return None if real is None else device_of(path, real)

    monkeypatch.setattr(walk, "scan", pretending)
    monkeypatch.setattr(walk, "device_of", device)
    monkeypatch.setattr(moved_photos, "device_of", device)
    return numbers
