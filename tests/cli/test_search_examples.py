"""`search` with several pictures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Command = Callable[..., Any]


def ids(found: dict[str, Any]) -> list[int]:
    return [hit["photo_id"] for hit in found["hits"]]


def score_of(found: dict[str, Any], name: str) -> float:
    return next(float(hit["score"]) for hit in found["hits"] if Path(hit["path"]).name == name)


def test_several_pictures_with_weights(vitmae_search: Command, indexed: Path) -> None:
    done = vitmae_search(
        "search", indexed / "0.jpg", f"2:{indexed}/1.jpg", "--less", indexed / "2.jpg", "--json"
    )
    assert done.code == 0
    assert done.json["examples"] == 3
    assert done.json["calibration"] is None
    first, second = (Path(hit["path"]).name for hit in done.json["hits"][:2])
    assert (first, second) == ("1.jpg", "0.jpg")
    without = vitmae_search("search", indexed / "0.jpg", f"2:{indexed}/1.jpg", "--json")
    assert score_of(without.json, "2.jpg") > score_of(done.json, "2.jpg") + 0.05


def test_photos_by_id_are_not_among_the_hits(vitmae_search: Command, indexed: Path) -> None:
    some = ids(vitmae_search("search", indexed / "0.jpg", "-k", "3", "--json").json)
    found = vitmae_search("search", f"id:{some[0]}", f"0.5:id:{some[1]}", "--less", f"id:{some[2]}", "--json")
    assert found.json["examples"] == 3
    assert not set(some) & set(ids(found.json))


def test_one_id_is_more_like_this(vitmae_search: Command, indexed: Path) -> None:
    (own,) = ids(vitmae_search("search", indexed / "0.jpg", "-k", "1", "--json").json)
    found = vitmae_search("search", f"id:{own}", "-k", "100", "--json").json
    assert found["examples"] == 1
    assert len(found["hits"]) == 7
    assert own not in ids(found)


def test_a_file_with_such_a_name_is_that_file(
    vitmae_search: Command, indexed: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(indexed / "3.jpg", "id:1")
    found = vitmae_search("search", "id:1", "-k", "1", "--json")
    assert Path(found.json["hits"][0]["path"]).name == "3.jpg"


def test_what_cannot_be_is_said(vitmae_search: Command, indexed: Path) -> None:
    assert vitmae_search("search").code == 2
    done = vitmae_search("search", f"0:{indexed}/1.jpg")
    assert done.code == 2
    assert "not above 0" in done.err
    done = vitmae_search("search", "id:999")
    assert (done.code, done.err) == (1, "error: the library has no photo with id 999\n")
    done = vitmae_search("search", indexed / "0.jpg", indexed / "1.jpg", "--min-score", "same")
    assert done.code == 1
    assert "not for several" in done.err
