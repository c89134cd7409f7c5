"""`classify`, and what `search` and `status` do with its tags."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def colours(tmp_path: Path, write_colour: Callable[[Path, str, int], Path], vitmae_search: Any) -> Path:
    """Nine indexed photos, red-0.jpg to blue-8.jpg."""
    folder = tmp_path / "photos"
    for seed in range(9):
        colour = ("red", "green", "blue")[seed % 3]
        write_colour(folder / colour / f"{colour}-{seed}.jpg", colour, seed)
    assert vitmae_search("index", folder, "--embedder", "color_layout").code == 0
    return folder


def test_classify_search_and_status(vitmae_search: Any, colours: Path, colour_model: Path) -> None:
    words = ("classify", "--model", colour_model, "--top", "1", "--min-confidence", "0")
    done = vitmae_search(*words, "--json")
    assert done.code == 0, done.err
    report = done.json
    assert {"classified", "unchanged", "failed", "failures", "labels", "seconds", "model"} <= set(report)
    assert (report["classified"], report["unchanged"], report["failed"]) == (9, 0, 0)
    assert (report["labels"], report["model"]) == (["red", "green", "blue"], "colours")
    assert vitmae_search(*words, "--json").json["unchanged"] == 9
    again = vitmae_search(*words, "--all")
    assert again.out.startswith("9 photos classified by colours, 0 unchanged, 0 failed")
    assert vitmae_search("status", "--json").json["tags"] == {"blue": 3, "green": 3, "red": 3}
    assert "tags     blue 3, green 3, red 3" in vitmae_search("status").out

    query = colours / "red" / "red-0.jpg"
    for tag in ("green", "GREEN"):
        hits = vitmae_search("search", query, "--tag", tag, "--json").json["hits"]
        assert {Path(hit["path"]).parent.name for hit in hits} == {"green"}
        assert len(hits) == 3
    sure = ("search", query, "--tag", "green", "--min-confidence", "1", "--json")
    assert vitmae_search(*sure).json["hits"] == []


def test_a_tag_that_no_photo_has(vitmae_search: Any, colours: Path, colour_model: Path) -> None:
    query = colours / "red" / "red-0.jpg"
    before = vitmae_search("search", query, "--tag", "cat", "--json")
    assert (before.code, before.json["hits"]) == (0, [])
    assert "vitmae-search classify" in before.err
    vitmae_search("classify", "--model", colour_model)
    after = vitmae_search("search", query, "--tag", "cat\n")
    assert "no photo has the tag 'cat\\\\n'; there are: " in after.err
    assert "green" in after.err
    assert "no photo matches" in after.out


def test_only_under_a_folder(vitmae_search: Any, colours: Path, colour_model: Path) -> None:
    done = vitmae_search("classify", "--model", colour_model, "--under", colours / "red", "--json")
    assert done.json["classified"] == 3


def test_a_file_that_has_changed_is_counted(vitmae_search: Any, colours: Path, colour_model: Path) -> None:
    (colours / "red" / "red-0.jpg").write_bytes(b"not a picture any more")
    done = vitmae_search("classify", "--model", colour_model, "--json")
    assert (done.code, done.json["failed"]) == (0, 1)
    assert done.json["failures"][0]["path"].endswith("red-0.jpg")
    assert "failed: " in vitmae_search("classify", "--model", colour_model).out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("classify",), 2, "--model"),
        (("classify", "--model", "x", "--top", "0"), 2, "--top"),
        (("classify", "--model", "x", "--min-confidence", "2"), 2, "--min-confidence"),
        (("classify", "--model", "no-such-model"), 1, "no model"),
        (("classify", "--model", "vitmae-tiny-patch8-64"), 1, "no classifier"),
        (("classify", "--model", "x", "--plugin", "color_layout"), 1, "cannot classify"),
        (("search", "x.jpg", "--min-confidence", "0.5"), 2, "--min-confidence goes with --tag"),
    ],
)
def test_mistakes_are_one_line(
    vitmae_search: Any, colours: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    done = vitmae_search(*words)
    assert done.code == code
    assert said in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_an_empty_library(vitmae_search: Any, colour_model: Path, tmp_path: Path) -> None:
    done = vitmae_search("classify", "--model", colour_model)
    assert done.code == 1
    assert "vitmae-search index" in done.err
    assert not (tmp_path / "library").exists()
    assert vitmae_search("status", "--json").json["tags"] == {}
