"""Plugins of third parties: one in a folder, one in a package that pip builds and installs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "brightness-embedder"
version = "1.2"

[project.entry-points."vitmae_search.embedders"]
brightness = "brightness_embedder"
brightness_object = "brightness_embedder.other:other_plugin"
broken = "brightness_embedder.missing"

[tool.hatch.build.targets.wheel]
packages = ["brightness_embedder"]
"""

MODULE = """
from dataclasses import dataclass

import numpy as np

from vitmae_search.embedding import Embedder, EmbedderPlugin, PluginInfo

from .sizes import SIDE


@dataclass
class Shrink:
    side: int

    def __call__(self, image, /):
        return np.array(image.convert("L").resize((self.side, self.side)))


class Brightness(Embedder):
    model = "brightness"
    provenance = {"device": "cpu", "precision": "fp32"}

    def __init__(self, side):
        self.dimension, self.input_size, self.identity = side * side, side, {"side": side}
        self.prepare = Shrink(side)

    def embed(self, batch):
        flat = batch.reshape(len(batch), -1) + np.float64(1)
        return (flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float32)


class Plugin(EmbedderPlugin):
    def __init__(self, name):
        self.info = PluginInfo(name=name, title="Brightness", options={"side": SIDE})

    def open(self, options, *, device, precision):
        return Brightness(options["side"])


plugin = Plugin("NAME")
"""

LIST_AND_OPEN = """
import json, sys
import numpy as np
from PIL import Image
from vitmae_search.embedding import PluginHost, open_embedder

host = PluginHost(sys.argv[1:])
opened = {}
for listing in host.listings():
    if "bundled" not in listing.origin and listing.error is None:
        with open_embedder(host.get(listing.name), {"side": "5"}) as embedder:
            batch = np.stack([embedder.prepare(Image.new("RGB", (9, 7), c)) for c in ("red", "blue")])
            opened[listing.name] = embedder.embed(batch).shape
print(json.dumps({
    "listed": {p.name: [p.origin, p.error] for p in host.listings()},
    "opened": opened,
    "torch": "torch" in sys.modules,
}))
"""

IMPORT_KIT = (
    "import sys; from pathlib import Path; from vitmae_search.embedding.testing import check_embedder\n"
)


def write_package(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(MODULE.replace("NAME", name))
    (folder / "sizes.py").write_text("SIDE = 6\n")
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip installed the package into. Built offline, by the hatchling that is here."""
    pytest.importorskip("hatchling")
    source = tmp_path_factory.mktemp("source")
    package = write_package(source / "brightness_embedder", "brightness")
    (package / "other.py").write_text("from . import Plugin\nother_plugin = Plugin('brightness-2')\n")
    (source / "pyproject.toml").write_text(PYPROJECT)
    target = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def run(code: str, *arguments: str | Path, path: Path | None = None) -> str:
    """`code` in a fresh interpreter, with `path` before its import path. Its stdout."""
    start = f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else ""
    command = [sys.executable, "-c", start + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_and_a_dropped_in_plugin_are_listed_and_opened(site: Path, tmp_path: Path) -> None:
    write_package(tmp_path / "plugins" / "dim", "dimness")
    result = json.loads(run(LIST_AND_OPEN, tmp_path / "plugins", path=site))
    listed = result["listed"]
    assert listed["dimness"] == [f"folder: {tmp_path / 'plugins' / 'dim'}", None]
    assert listed["brightness"] == ["package: brightness-embedder 1.2 (brightness_embedder)", None]
    assert listed["brightness-2"][1] is None
    assert "No module named 'brightness_embedder.missing'" in listed["broken"][1]
    assert listed["color_layout"][1] is None
    assert result["opened"] == {"dimness": [2, 25], "brightness": [2, 25], "brightness-2": [2, 25]}
    assert not result["torch"]


def test_both_can_be_checked_by_the_kit(site: Path, tmp_path: Path) -> None:
    dropped = write_package(tmp_path / "plugins" / "dim", "dimness")
    run(IMPORT_KIT + "check_embedder('brightness_embedder.other:other_plugin', {'side': 4})", path=site)
    run(IMPORT_KIT + "check_embedder(Path(sys.argv[1]))", dropped)
