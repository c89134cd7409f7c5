"""Words on the command line: told apart from files, and found with a CLIP of the hub's kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Command
from tests.helpers import hub_models


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "clip"
    hub_models.save_clip(folder)
    return folder


def test_index_and_search_with_a_clip(vitmae_search: Command, photos: Path, clip: Path, monkeypatch) -> None:
    assert vitmae_search("index", photos, "--model", f"hub:{clip}", "--json").json["added"] == 8
    found = vitmae_search("search", "a red bicycle", "--model", f"hub:{clip}", "-k", "3", "--json").json
    assert (len(found["hits"]), found["words"], found["examples"], found["model"]) == (3, 1, 0, "clip")
    assert found["part_of"] is None
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True)
    # The same photos as by hand: the text's vector with those of the photos.
    one, weighted = (
        vitmae_search("search", words, "--json").json for words in ("text:a red bicycle", "2:a red bicycle")
    )
    assert [hit["score"] for hit in one["hits"]][:3] == scores
    assert weighted["hits"] == one["hits"]
    mixed = vitmae_search("search", photos / "0.jpg", "a red bicycle", "--less", "night sky", "--json").json
    assert (mixed["words"], mixed["examples"]) == (2, 1)
    assert "0.jpg" in vitmae_search("search", photos / "0.jpg", "--model", f"hub:{clip}").out.splitlines()[0]
    # A file is a picture, even where its name reads as words.
    Image.open(photos / "3.jpg").save(photos / "a red bicycle", format="JPEG")
    monkeypatch.chdir(photos)
    assert vitmae_search("search", "a red bicycle", "--json").json["words"] == 0
    assert vitmae_search("search", "text:a red bicycle", "--json").json["words"] == 1


@pytest.mark.parametrize("name", ["beach.jpg", "./beach", "photos/beach", "/beach", "~/beach"])
def test_what_looks_like_a_file_is_one(vitmae_search: Command, indexed: Path, name: str) -> None:
    result = vitmae_search("search", name)
    assert result.code != 0
    assert "No such file" in result.err or "no such file" in result.err, result.err


def test_a_model_without_words_says_both(vitmae_search: Command, indexed: Path) -> None:
    result = vitmae_search("search", "beach")
    assert result.code != 0
    assert "'beach' is no file, and the model 'color-layout' does not know words" in result.err
    assert "--model hub:openai/clip-vit-base-patch32" in result.err


def test_space_and_model_exclude_each_other(vitmae_search: Command, indexed: Path) -> None:
    assert "give one of them" in vitmae_search("search", "beach", "--space", "1", "--model", "hub:x/y").err


def test_saved_searches_keep_words(vitmae_search: Command, indexed: Path) -> None:
    saved = vitmae_search("searches", "save", "bikes", "2:a red bicycle", "--json").json["searches"]
    assert [(search["name"], search["words"]) for search in saved] == [("bikes", [["a red bicycle", 2.0]])]
    assert "does not know words" in vitmae_search("searches", "run", "bikes").err
