"""Plugins written to disk, whole and broken."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

TEMPLATE = """
import numpy as np
from vitmae_search.embedding import Embedder, EmbedderPlugin, PluginInfo


def prepare(image, /):
    return np.array(image.convert("RGB").resize((8, 8)))


class MeanColour(Embedder):
    model = "mean-colour"
    identity = {"side": 8}
    provenance = {"precision": "fp32"}
    dimension = 192
    input_size = 8

    def __init__(self, options):
        self.options = options
        self.prepare = prepare

    def embed(self, batch):
        flat = batch.reshape(len(batch), -1).astype(np.float64) + 1
        return (flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float32)

    def close(self):
        pass


class Plugin(EmbedderPlugin):
    info = PluginInfo(
        name="NAME",
        title="Mean colour",
        options={"size": 8, "deep": False, "power": 1.5, "mode": "a"},
    )

    def open(self, options, *, device, precision):
        return MeanColour(options)


plugin = Plugin()
"""

WritePlugin = Callable[..., Path]


@pytest.fixture
def write_plugin(tmp_path: Path) -> WritePlugin:
    """`write_plugin("mine", old="...", new="...")`: a good plugin in a file, with one piece replaced.

    `code` replaces it whole, `folder` chooses another folder, `package=True` makes a folder of it.
    """

    def write(
        name: str,
        *,
        old: str = "",
        new: str = "",
        code: str | None = None,
        folder: Path | None = None,
        package: bool = False,
    ) -> Path:
        text = textwrap.dedent(code) if code is not None else TEMPLATE.replace("NAME", name)
        if old:
            assert old in text
            text = text.replace(old, new)
        place = folder or tmp_path / "plugins"
        path = place / name if package else place / f"{name}.py"
        file = path / "__init__.py" if package else path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return path

    return write
