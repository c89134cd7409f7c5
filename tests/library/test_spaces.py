"""Which space is used, and that vectors of different spaces are never compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import LibraryBusy, LibraryError, PluginBroken, PluginNotFound, SpaceError
from vitmae_search.library import Library

PLUGIN = """
import numpy as np
from vitmae_search.embedding import Embedder, EmbedderPlugin, PluginInfo

class MeanColour(Embedder):
    model, provenance, dimension, input_size = "mean-colour", {}, 3, 8
    def __init__(self, power): self.identity, self._power = {"power": POWER}, power
    def prepare(self, image): return np.asarray(image.resize((8, 8)))
    def embed(self, batch):
        means = batch.reshape(len(batch), -1, 3).mean(axis=1) + 1
        return np.ascontiguousarray(means / np.linalg.norm(means, axis=1, keepdims=True), dtype=np.float32)
    def close(self): pass

class Plugin(EmbedderPlugin):
    info = PluginInfo(name="mean_colour", title="Mean colour", options={"power": 1.0})
    def open(self, options, *, device, precision): return MeanColour(options["power"])

plugin = Plugin()
"""


def write_plugin(folder: Path, power: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mean_colour.py").write_text(PLUGIN.replace("POWER", str(power)), "utf-8")
    return folder


def test_the_first_space_stays_current_until_another_is_used(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    plugins = write_plugin(tmp_path / "plugins", 1.0)
    with Library.open(tmp_path / "library", embedder="mean_colour", plugin_folders=[plugins]) as other:
        other.index(photos)
        mine = other.search(photos / "odd" / "1.jpg").space
        assert mine.plugin == "mean_colour", "what a person chose explicitly is what is searched"
    assert library.search(photos / "odd" / "1.jpg").space.plugin == "color_layout"
    library.use_space(mine.space_id)
    assert library.search(photos / "odd" / "1.jpg").space.plugin == "mean_colour"
    library.drop_space(mine.space_id)
    assert [space.plugin for space in library.spaces()] == ["color_layout"]
    assert not list((tmp_path / "library" / "vectors").glob(f"{mine.fingerprint}*"))


def test_where_the_plugin_is_gone_the_error_says_what_to_do(photos: Path, tmp_path: Path) -> None:
    library, plugins = tmp_path / "library", write_plugin(tmp_path / "plugins", 1.0)
    with Library.open(library, embedder="mean_colour", plugin_folders=[plugins]) as opened:
        opened.index(photos)
    (plugins / "mean_colour.py").unlink()
    remedies = r"made space 1: put it back, .* --embedder, or another space with `vitmae-search spaces use`"
    with Library.open(library, plugin_folders=[plugins]) as opened:
        with pytest.raises(PluginNotFound, match=remedies):
            opened.index(photos)
        with pytest.raises(PluginNotFound, match=remedies):
            opened.search(Image.new("RGB", (20, 30), "red"))


def test_a_changed_model_is_never_compared_with_old_vectors(photos: Path, tmp_path: Path) -> None:
    library, plugins = tmp_path / "library", write_plugin(tmp_path / "plugins-a", 1.0)
    with Library.open(library, embedder="mean_colour", plugin_folders=[plugins]) as opened:
        opened.index(photos)
    changed = write_plugin(tmp_path / "plugins-b", 2.0)
    query = (photos / "odd" / "1.jpg").read_bytes()
    with Library.open(library, plugin_folders=[changed]) as opened:
        assert opened.search(query).known, "stored vectors go on being searched"
        with pytest.raises(SpaceError, match="has changed"):
            opened.search(Image.new("RGB", (9, 9)))
        opened.index(photos)
        assert len(opened.spaces()) == 2, "a changed model gets a space of its own"


FILE_PLUGIN = """
import numpy as np
from vitmae_search.embedding import Embedder, EmbedderPlugin, PluginInfo

class FromFile(Embedder):
    model, provenance, dimension, input_size = "from-file", {}, 3, 8
    def __init__(self, weight):
        self.weight, self.identity = weight, {"weight": weight}
    def prepare(self, image): return np.asarray(image.resize((8, 8)))
    def embed(self, batch):
        means = batch.reshape(len(batch), -1, 3).mean(axis=1) + self.weight
        return np.ascontiguousarray(means / np.linalg.norm(means, axis=1, keepdims=True), dtype=np.float32)
    def close(self): self.weight = None

class Plugin(EmbedderPlugin):
    info = PluginInfo(name="from_file", title="Weights from a file", options={"model": ""})
    def open(self, options, *, device, precision):
        with open(options["model"]) as file:
            return FromFile(float(file.read()))

plugin = Plugin()
"""


@pytest.fixture
def file_plugin(tmp_path: Path) -> Path:
    (tmp_path / "file-plugins").mkdir()
    (tmp_path / "file-plugins" / "from_file.py").write_text(FILE_PLUGIN, "utf-8")
    return tmp_path / "file-plugins"


def test_weights_that_moved_are_the_same_model(photos: Path, tmp_path: Path, file_plugin: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("1", "utf-8")
    folder, pixels = tmp_path / "library", Image.new("RGB", (9, 9))

    def opened(model: Path | None) -> Library:
        plugin = None if model is None else "from_file"
        name = None if model is None else str(model)
        return Library.open(folder, embedder=plugin, model=name, plugin_folders=[file_plugin])

    with opened(old) as library:
        library.index(photos)
    old.rename(new)
    with opened(new) as library:
        assert library.search(pixels).hits, "found by what it is, not by its name"
        assert library.index(photos).unchanged == 12
        assert library.search(pixels).hits
    with opened(None) as library:
        assert library.search(pixels).hits, "reopened from where it is now"
        assert len(library.spaces()) == 1


def test_a_model_among_the_options_is_found_from_anywhere(
    photos: Path, tmp_path: Path, file_plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").write_text("1", "utf-8")
    folder = tmp_path / "library"
    monkeypatch.chdir(tmp_path)
    options = {"model": "weights"}
    with Library.open(folder, embedder="from_file", options=options, plugin_folders=[file_plugin]) as library:
        library.index(photos)
    monkeypatch.chdir(photos)
    with Library.open(folder, plugin_folders=[file_plugin]) as library:
        assert library.search(Image.new("RGB", (9, 9))).hits


def test_without_its_plugin_a_library_still_reconstructs(
    photos: Path, tmp_path: Path, file_plugin: Path
) -> None:
    (tmp_path / "weights").write_text("1", "utf-8")
    folder, model = tmp_path / "library", str(tmp_path / "weights")
    with Library.open(folder, embedder="from_file", model=model, plugin_folders=[file_plugin]) as library:
        library.index(photos)
    with Library.open(folder) as library:
        assert library.reconstruct(photos / "odd" / "1.jpg").mask.any()


def test_a_plugin_that_fails_does_not_hide_the_others_models(tmp_path: Path, file_plugin: Path) -> None:
    broken = FILE_PLUGIN.replace("from_file", "broken") + "    \nplugin.models = lambda: 1 / 0\n"
    (file_plugin / "broken.py").write_text(broken, "utf-8")
    with Library.open(tmp_path / "library", plugin_folders=[file_plugin]) as library:
        names = [model.name for model in library.models()]
        assert names[0] == "vitmae-tiny-patch8-64"
        assert {"facebook/vit-mae-base", "hub:openai/clip-vit-base-patch32"} <= set(names)


CLOSING_PLUGIN = FILE_PLUGIN.replace("self.weight = None", "raise RuntimeError('will not')")


def test_a_model_that_cannot_be_closed_does_not_keep_others_open(
    photos: Path, tmp_path: Path, file_plugin: Path
) -> None:
    (file_plugin / "from_file.py").write_text(CLOSING_PLUGIN, "utf-8")
    (tmp_path / "weights").write_text("1", "utf-8")
    folder, model = tmp_path / "library", str(tmp_path / "weights")
    library = Library.open(folder, embedder="from_file", model=model, plugin_folders=[file_plugin])
    library.index(photos)
    reader = library._catalog()
    with pytest.raises(PluginBroken, match="will not"):
        library.close()
    with pytest.raises(LibraryError, match="closed"):
        reader.spaces()


def test_an_open_library_follows_a_model_that_was_trained_on(
    photos: Path, tmp_path: Path, file_plugin: Path
) -> None:
    weights, pixels = tmp_path / "weights", Image.new("RGB", (9, 9))
    weights.write_text("1", "utf-8")
    folder, choice = tmp_path / "library", {"embedder": "from_file", "model": str(weights)}
    with Library.open(folder, plugin_folders=[file_plugin], **choice) as library:
        library.index(photos)
    with Library.open(folder, plugin_folders=[file_plugin]) as app:
        assert app.search(pixels).hits
        weights.write_text("2", "utf-8")
        with Library.open(folder, plugin_folders=[file_plugin], **choice) as library:
            library.index(photos)
            newest = library.spaces()[-1].space_id
        assert app.search(pixels, space=newest).hits, "loaded anew"
        with pytest.raises(SpaceError, match="has changed"):
            app.search(pixels, space=1)


def test_searching_with_a_model_that_indexed_nothing(library: Library, photos: Path, tmp_path: Path) -> None:
    with (
        Library.open(tmp_path / "library", embedder="vitmae") as other,
        pytest.raises(SpaceError, match="run `index`"),
    ):
        other.search(photos / "odd" / "1.jpg")


def test_one_writer_at_a_time(library: Library, photos: Path, tmp_path: Path) -> None:
    with CatalogWriter.open_writer(tmp_path / "library"):
        with pytest.raises(LibraryBusy):
            library.index(photos)
        assert library.search(photos / "odd" / "1.jpg").hits, "readers go on"
