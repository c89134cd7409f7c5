"""`list`, `mark`, `albums`, `searches` and `undo`, and their filters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


def names(found: dict[str, Any]) -> set[str]:
    return {Path(one["path"]).name for one in found.get("photos", found.get("hits"))}


def test_marks_survive_moves_edits_and_indexing_anew(vitmae_search: Command, indexed: Path) -> None:
    done = vitmae_search(
        "mark", indexed / "1.jpg", indexed / "2.jpg", "--favourite", "--rating", "4", "--json"
    )
    assert (done.code, done.json) == (0, {"marked": 2})
    vitmae_search("albums", "add", "best of", indexed / "2.jpg")
    (indexed / "sub").mkdir()
    (indexed / "1.jpg").rename(indexed / "sub" / "moved.jpg")
    edited = indexed / "2.jpg"
    edited.write_bytes(edited.read_bytes() + b"edited")
    assert vitmae_search("index", indexed).code == 0
    assert vitmae_search("index", indexed, "--rescan").code == 0
    listed = vitmae_search("list", "--favourites", "--min-rating", "4", "--json").json
    assert names(listed) == {"moved.jpg", "2.jpg"}
    assert listed["total"] == 2
    assert names(vitmae_search("list", "--album", "best of", "--json").json) == {"2.jpg"}
    assert names(vitmae_search("search", indexed / "0.jpg", "--min-rating", "4", "--json").json) == names(
        listed
    )


def test_a_photo_that_was_away_and_pruned_keeps_its_rating(vitmae_search: Command, indexed: Path) -> None:
    vitmae_search("mark", indexed / "3.jpg", "--rating", "5")
    data = (indexed / "3.jpg").read_bytes()
    (indexed / "3.jpg").unlink()
    vitmae_search("index", indexed)
    assert vitmae_search("prune", "--json").json["photos"] == 1
    assert names(vitmae_search("list", "--min-rating", "1", "--json").json) == set()
    (indexed / "again.jpg").write_bytes(data)
    vitmae_search("index", indexed)
    assert names(vitmae_search("list", "--min-rating", "1", "--json").json) == {"again.jpg"}


def test_lines_for_people(vitmae_search: Command, indexed: Path) -> None:
    listed = vitmae_search("list", "--json").json["photos"]
    one = next(photo for photo in listed if photo["path"].endswith("/1.jpg"))
    vitmae_search("mark", f"id:{one['photo_id']}", "--favourite", "--rating", "3")
    line = f"{one['photo_id']:8d}  ♥ ★★★    {indexed}/1.jpg\n"
    assert vitmae_search("list", "--favourites").out == line
    assert len(vitmae_search("list", "--limit", "3", "--offset", "7").out.splitlines()) == 1
    vitmae_search("mark", indexed / "1.jpg", "--no-favourite")
    assert vitmae_search("list", "--favourites").out == ""
    assert one["favourite"] is False
    assert {"width", "height", "date", "digest", "rating", "albums"} <= one.keys()


def test_albums(vitmae_search: Command, indexed: Path) -> None:
    assert "there are no albums" in vitmae_search("albums").out
    done = vitmae_search("albums", "add", "x  y", indexed / "1.jpg", indexed / "2.jpg", "--json")
    assert done.json == {"albums": {"x y": 2}}
    assert vitmae_search("albums", "remove", "x y", indexed / "1.jpg", "--json").json == {
        "albums": {"x y": 1}
    }
    assert vitmae_search("albums", "rename", "x y", "z", "--json").json == {"albums": {"z": 1}}
    assert vitmae_search("albums", "delete", "z", "--json").json == {"albums": {}}
    assert vitmae_search("undo", "--json").json == {"undone": "the album z deleted"}
    assert vitmae_search("albums").out == "     1  z\n"
    for _ in range(3):
        vitmae_search("undo")
    assert vitmae_search("albums", "--json").json == {"albums": {}}
    assert vitmae_search("undo").out == "there is nothing to undo\n"


def test_saved_searches(vitmae_search: Command, indexed: Path) -> None:
    done = vitmae_search(
        "searches", "save", "blue", indexed / "1.jpg", f"2:{indexed}/2.jpg", "--under", indexed
    )
    assert done.code == 0, done.err
    found = vitmae_search("searches", "run", "blue", "-k", "3", "--json").json
    assert (len(found["hits"]), found["examples"]) == (3, 2)
    vitmae_search("mark", indexed / "5.jpg", "--favourite")
    vitmae_search("searches", "save", "mine", "--favourites")
    assert names(vitmae_search("searches", "run", "mine", "--json").json) == {"5.jpg"}
    assert vitmae_search("searches").out == "blue\nmine\n"
    assert vitmae_search("searches", "delete", "mine").out == "blue\n"
    vitmae_search("undo")
    assert [one["name"] for one in vitmae_search("searches", "--json").json["searches"]] == ["blue", "mine"]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["mark", "{}/1.jpg"], 2, "give --favourite, --no-favourite or --rating"),
        (["mark", "{}/1.jpg", "--rating", "6"], 2, "not in the range"),
        (["mark", "{}/none.jpg", "--favourite"], 1, "the library has no photo {}/none.jpg"),
        (["mark", "id:99", "--favourite"], 1, "no photo with id 99"),
        (["albums", "add", " ", "{}/1.jpg"], 1, "a name has 1 to 200 characters"),
        (["albums", "delete", "no"], 1, "there is no album 'no'; there are: none"),
        (["searches", "run", "no"], 1, "there is no saved search 'no'; there are: none"),
        (["searches", "save", "no", "--less", "{}/1.jpg"], 2, "--less goes with an IMAGE"),
        (["list", "--min-confidence", "0.5"], 2, "--min-confidence goes with --tag"),
    ],
)
def test_what_cannot_be_is_said(
    vitmae_search: Command, indexed: Path, words: list[str], code: int, text: str
) -> None:
    done = vitmae_search(*(word.format(indexed) for word in words))
    assert done.code == code
    assert text.format(indexed) in done.err


def test_an_album_that_is_not_there_is_said_and_nothing_found(vitmae_search: Command, indexed: Path) -> None:
    done = vitmae_search("list", "--album", "no", "--json")
    assert (done.code, done.json["photos"]) == (0, [])
    assert "there is no album 'no'; there are: none" in done.err
