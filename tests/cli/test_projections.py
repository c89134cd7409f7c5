"""`--projection` and `spaces derive`: messages, streams and exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitmae_search.embedding import Projection

WIDTH = 268


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A projection of color_layout's features."""
    weight = np.random.default_rng(0).normal(size=(6, WIDTH))
    path = tmp_path / "whitening.safetensors"
    Projection([weight], [np.zeros(6)], "whitening").save(path)
    return path


def test_deriving_a_space(vitmae_search: Callable[..., Any], indexed: Path, file: Path) -> None:
    done = vitmae_search("spaces", "derive", file, "--json")
    assert done.code == 0, done.err
    features, derived = done.json["spaces"]
    assert (features["kind"], features["parent"], features["projection"]) == ("features", None, None)
    assert (derived["kind"], derived["parent"], derived["dimension"]) == ("whitening", features["id"], 6)
    assert derived["projection"] == Projection.read(file).digest
    assert (derived["vectors"], derived["current"]) == (8, True)
    listed = vitmae_search("spaces").out
    assert f"whitening {derived['projection'][:12]} of space 1" in listed
    assert "features (of 2)" in listed
    assert "whitening" in vitmae_search("status").out
    found = vitmae_search("search", indexed / "3.jpg", "--json").json
    assert (found["space"], found["hits"][0]["path"]) == (2, str(indexed / "3.jpg"))
    found = vitmae_search("search", indexed / "3.jpg", "--projection", "none", "--json").json
    assert found["space"] == 1
    done = vitmae_search("spaces", "drop", 1)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "drop space 2 first" in done.err


def test_deriving_beside_the_current_space(
    vitmae_search: Callable[..., Any], indexed: Path, file: Path
) -> None:
    words = ("derive", file, "--from", 1, "--keep-current", "--json")
    assert [space["current"] for space in vitmae_search("spaces", *words).json["spaces"]] == [True, False]
    found = vitmae_search("search", indexed / "3.jpg", "--projection", file, "--json").json
    assert found["space"] == 2


def test_indexing_with_a_projection(vitmae_search: Callable[..., Any], photos: Path, file: Path) -> None:
    words = ("index", photos, "--embedder", "color_layout", "--projection", file, "--json")
    assert vitmae_search(*words).json["space"] == 2
    (photos / "broken.jpg").write_text("no photo", "utf-8")
    report = vitmae_search("index", photos, "--json").json
    assert (report["space"], report["unchanged"], report["failed"]) == (2, 8, 1)
    status = vitmae_search("status", "--failures", "--json").json
    assert (status["failed"], len(status["failures"])) == (1, 1)
    assert [space["vectors"] for space in status["spaces"]] == [8, 8]
    assert vitmae_search("check", "--json").json["ok"]


@pytest.mark.parametrize("words", [("index", "PHOTOS"), ("search", "PHOTOS/1.jpg"), ("spaces", "derive")])
def test_a_file_that_is_no_projection_is_one_sentence(
    vitmae_search: Callable[..., Any], indexed: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "notes.txt").write_text("hello", "utf-8")
    named = [word.replace("PHOTOS", str(indexed)) for word in words]
    option = [] if words[0] == "spaces" else ["--projection"]
    done = vitmae_search(*named, *option, tmp_path / "notes.txt")
    assert done.code == 1
    assert done.err.strip().splitlines() == [
        f"error: {tmp_path / 'notes.txt'} is not a projection file, or is damaged."
    ]


def test_a_model_without_a_projection_is_an_error(vitmae_search: Callable[..., Any], indexed: Path) -> None:
    done = vitmae_search("spaces", "derive")
    assert done.code == 1
    assert "has no projection of its own for these features; name a file" in done.err


def test_check_reports_a_lost_projection(
    vitmae_search: Callable[..., Any], indexed: Path, file: Path, tmp_path: Path
) -> None:
    vitmae_search("spaces", "derive", file)
    (stored,) = (tmp_path / "library" / "projections").iterdir()
    stored.unlink()
    done = vitmae_search("check", "--json")
    assert (done.code, len(done.json["problems"])) == (1, 1)
    assert "spaces drop 2" in done.json["problems"][0]
    assert vitmae_search("spaces", "drop", 2).code == 0
    assert vitmae_search("check").code == 0


def test_space_and_projection_together_are_refused(
    vitmae_search: Callable[..., Any], indexed: Path, file: Path
) -> None:
    assert vitmae_search("search", indexed / "1.jpg", "--space", 1, "--projection", "none").code == 2
