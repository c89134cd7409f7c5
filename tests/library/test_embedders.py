"""Cached descriptions of embedders: without changes no model is opened, and every change is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vitmae_search.errors import SpaceError
from vitmae_search.library import Library, embedders
from vitmae_search.photos import decode_worker
from vitmae_search.records import IndexReport
from vitmae_search.settings import settings

PLUGIN = '''
import os
import numpy as np
from vitmae_search.embedding import Embedder, EmbedderPlugin, PluginInfo

def prepare(image, /):
    return np.array(image.convert("RGB").resize((2, 2)))

class Filed(Embedder):
    """Its identity is what a file says. Each opening leaves a line in a log."""

    model, dimension, input_size, prepare = "filed", 12, 8, staticmethod(prepare)

    def __init__(self, options):
        with open(options["file"]) as stream:
            self.identity = {"says": stream.read(), "size": options["size"]}
        self.provenance = {}
        if options["told"]:
            self.source_files = [options["file"], options["file"] + ".more"]
        with open(options["log"], "a") as log:
            log.write("opened\\n")

    def embed(self, batch):
        flat = batch.reshape(len(batch), -1) + np.float32(1)
        return np.ascontiguousarray(flat / np.linalg.norm(flat, axis=1, keepdims=True), np.float32)

    def close(self):
        pass

class Plugin(EmbedderPlugin):
    info = PluginInfo("filed", "Filed", options={"file": "", "log": "", "size": 1, "told": True})

    def open(self, options, *, device, precision):
        return Filed(options)

plugin = Plugin()
'''

Index = Callable[..., IndexReport]


@pytest.fixture
def home(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the plugin and the file that it is made from, which is taken to be old."""
    monkeypatch.setattr(embedders, "MIN_FILE_AGE_SECONDS", 0.0)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "filed.py").write_text(PLUGIN)
    (tmp_path / "weights").write_text("one")
    return tmp_path


@pytest.fixture
def index(home: Path, photos: Path) -> Index:
    """Index the photos in a `Library` of its own, as each command does."""

    def run(device: str = "auto", **options: str) -> IndexReport:
        files = {"file": str(home / "weights"), "log": str(home / "log")}
        opened = Library.open(
            home / "library",
            embedder="filed",
            options={**files, **options},
            device=device,
            plugin_folders=[home / "plugins"],
        )
        with opened as library:
            return library.index(photos)

    return run


def opened(home: Path) -> int:
    return len((home / "log").read_text().splitlines())


def test_nothing_is_opened_and_nothing_read_where_nothing_changed(
    home: Path, photos: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = index()
    read: list[object] = []
    monkeypatch.setattr(decode_worker, "read_photo", lambda path: read.append(path) or b"")
    again = index()
    assert read == []
    assert (again.unchanged, again.failed, again.space) == (12, 0, first.space)
    assert opened(home) == 1
    with Library.open(home / "library", plugin_folders=[home / "plugins"]) as library:
        assert library.index(photos).unchanged == 12  # with the options that the space keeps
    assert opened(home) == 1


def test_new_photos_are_embedded(
    home: Path, photos: Path, index: Index, write_photo: Callable[[Path, int], Path]
) -> None:
    first = index()
    write_photo(photos / "new.jpg", 99)
    again = index()
    assert (again.added, again.unchanged, again.space) == (1, 12, first.space)
    assert opened(home) == 2
    assert index().unchanged == 13
    assert opened(home) == 2


def rewrite(file: Path) -> None:
    file.write_text("another")


def rewrite_with_size_and_date(file: Path) -> None:
    status = file.stat()
    file.write_text("two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def exchange_with_size_and_date(file: Path) -> None:
    other = file.with_name("other")
    other.write_text("two")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)


@pytest.mark.parametrize("change", [rewrite, rewrite_with_size_and_date, exchange_with_size_and_date])
def test_a_changed_file_is_noticed(home: Path, index: Index, change: Callable[[Path], None]) -> None:
    first = index()
    change(home / "weights")
    again = index()
    assert again.space != first.space
    assert (again.added, again.unchanged) == (12, 0)


def test_a_file_that_was_not_there_is_noticed(home: Path, index: Index) -> None:
    index()
    (home / "weights.more").touch()
    assert index().unchanged == 12
    assert opened(home) == 2


def test_other_options_and_another_device_are_noticed(home: Path, index: Index) -> None:
    first = index()
    assert index(size="2").space != first.space
    assert index(device="cpu").space == first.space
    assert opened(home) == 3


def test_a_file_that_has_just_changed_is_not_trusted(
    home: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedders, "MIN_FILE_AGE_SECONDS", 3600.0)
    index()
    index()
    assert opened(home) == 2


def test_an_embedder_without_source_files_is_opened_each_time(home: Path, index: Index) -> None:
    index(told="no")
    index(told="no")
    assert opened(home) == 2


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"code": 1}', b"\xff\xfe", b"[]"])
def test_a_damaged_cached_description_is_ignored(home: Path, index: Index, damage: bytes) -> None:
    index()
    for path in (settings().cache / embedders.CACHE_FOLDER).iterdir():
        path.write_bytes(damage)
    assert index().unchanged == 12
    assert opened(home) == 2


def test_a_model_that_changes_while_it_is_loaded_is_refused(home: Path, photos: Path, index: Index) -> None:
    index()
    with Library.open(home / "library", plugin_folders=[home / "plugins"]) as library:
        [space] = library.spaces()
        remembered_ones = [
            library._embedders.lazy_for_space(space),
            library._embedders.lazy(space.plugin, space.options),
        ]
        assert opened(home) == 1
        rewrite_with_size_and_date(home / "weights")
        for known in remembered_ones:
            with pytest.raises(SpaceError, match="changed"):
                known.open()


def run_here(*words: object) -> list[str]:
    """Run one command in a process of its own; what it loaded of all that is heavy."""
    code = (
        "import sys; from vitmae_search.library import embedders; embedders.MIN_FILE_AGE_SECONDS = 0.0; "
        "from vitmae_search.cli.main import run; assert run(sys.argv[1:]) == 0; "
        "print(*sorted({'torch', 'transformers', 'streamlit'} & set(sys.modules)))"
    )
    words = (sys.executable, "-c", code, *map(str, words), "--json")
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def test_the_shipped_model_is_not_loaded_for_photos_that_are_known(tmp_path: Path, photos: Path) -> None:
    assert run_here("index", photos, "--device", "cpu") == ["torch"]
    assert run_here("index", photos, "--device", "cpu") == []
    assert run_here("search", photos / "odd" / "1.jpg") == []


def test_another_code_of_the_plugin_is_noticed(
    home: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITMAE_SEARCH_PLUGINS", str(home / "plugins"))
    told = ("-o", f"file={home / 'weights'}", "-o", f"log={home / 'log'}")
    for _ in range(2):
        run_here("index", photos, "--embedder", "filed", *told)
    assert opened(home) == 1
    source = home / "plugins" / "filed.py"
    source.write_text(source.read_text().replace('"says":', '"reads":'))
    run_here("index", photos, "--embedder", "filed", *told)
    assert opened(home) == 2
    with Library.open(plugin_folders=[home / "plugins"]) as library:
        assert [set(space.identity) for space in library.spaces()] == [{"says", "size"}, {"reads", "size"}]
