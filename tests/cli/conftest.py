"""Running the command in this process, on a library of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vitmae_search.cli.main import run


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout; anything beside it fails."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


Command = Callable[..., Result]


@pytest.fixture
def vitmae_search(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Call with the command's words. The library is tmp_path/library."""

    def call(*words: object) -> Result:
        capfd.readouterr()
        code = run([*map(str, words), "--library", str(tmp_path / "library")])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def photos(tmp_path: Path, write_photo: Callable[[Path, int], Path]) -> Path:
    """A folder of eight small photos, 0.jpg to 7.jpg."""
    folder = tmp_path / "photos"
    for seed in range(8):
        write_photo(folder / f"{seed}.jpg", seed)
    return folder


@pytest.fixture
def indexed(vitmae_search: Command, photos: Path) -> Path:
    """The folder `photos`, indexed with the small plugin."""
    assert vitmae_search("index", photos, "--embedder", "color_layout", "--json").code == 0
    return photos
