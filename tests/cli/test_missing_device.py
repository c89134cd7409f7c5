"""A device that this machine lacks, with every command: one sentence, exit code 1, and no file is written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitmae_search.cli.main import run

MISSING = "cuda:99"


def everything(folder: Path) -> dict[str, str]:
    """Every file and folder below, with what is in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
        if not path.name.endswith(("-wal", "-shm", "writer.lock"))  # SQLite's, while it is open
    }


@pytest.fixture
def place(tmp_path: Path, pieces: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for everything that a command could leave, with photos that a default could come from."""
    monkeypatch.chdir(tmp_path)
    os.symlink(pieces, tmp_path / "photos")
    os.symlink(pieces / "coffee-00.png", tmp_path / "one.png")
    return tmp_path


def refuses(capfd: pytest.CaptureFixture[str], *words: str) -> None:
    capfd.readouterr()
    assert run(list(words)) == 1, words
    said = capfd.readouterr()
    assert said.out == ""
    (line,) = [line for line in said.err.splitlines() if not line.startswith(("scanning", "measuring"))]
    assert line.startswith(f"error: {MISSING}: "), line
    assert "choose" in line


LIBRARY = ("--library", "library")
NEW: dict[str, tuple[str, ...]] = {
    "index": ("index", "photos", *LIBRARY),
    "evaluate": ("evaluate", "photos", "--output", "report.md", "--plot", "plot.png", *LIBRARY),
    "adapt to a file": ("adapt", "photos", "--output", "one.safetensors", *LIBRARY),
    "reconstruct": ("reconstruct", "one.png", "-o", "made.png", *LIBRARY),
    "models": ("models", "--speed", *LIBRARY),
    "pretrain": ("pretrain", "photos", "-o", "run"),
    "finetune": ("finetune", "photos", "-o", "run"),
}


@pytest.mark.parametrize("words", NEW.values(), ids=NEW.keys())
def test_without_a_library_none_is_made(
    words: tuple[str, ...], place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = everything(place)
    refuses(capfd, *words, "--device", MISSING)
    assert everything(place) == before


def test_the_demo_uses_the_device_of_the_environment(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITMAE_SEARCH_DEVICE", MISSING)
    before = everything(place)
    refuses(capfd, "demo", "photos", "--no-app", *LIBRARY)
    assert everything(place) == before


def test_a_library_stays_as_it_was(
    place: Path,
    colour_model: Path,
    capfd: pytest.CaptureFixture[str],
    write_photo: Callable[[Path, int], Path],
) -> None:
    words: Any = ("index", "photos", "--model", str(colour_model), "--device", "cpu", *LIBRARY)
    assert run(list(words)) == 0
    other = str(write_photo(place / "other.png", 1))
    before = everything(place)
    for asked in (
        ("search", other),
        ("reconstruct", "one.png", "-o", "made.png"),
        ("evaluate", "photos"),
        ("classify", "--model", str(colour_model)),
        ("adapt", "photos"),
    ):
        refuses(capfd, *asked, *LIBRARY, "--device", MISSING)
        after = everything(place)
        assert after.keys() == before.keys(), asked
    capfd.readouterr()
    assert run(["status", "--json", *LIBRARY]) == 0
    assert '"photos": 100' in capfd.readouterr().out
    assert run(["search", "one.png", *LIBRARY, "--device", MISSING]) == 0, "a known photo needs no device"
