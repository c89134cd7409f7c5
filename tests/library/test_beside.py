"""A second space: filled in the background, covering a part, and answering beside the current one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from vitmae_search.cli.main import cli
from vitmae_search.errors import SpaceError
from vitmae_search.library import Library

OTHER = {"histogram": "false"}


@pytest.fixture
def folder(tmp_path: Path, write_photo: Callable[[Path, int], Path]) -> Path:
    for seed in range(12):
        write_photo(tmp_path / "photos" / ("new" if seed > 7 else "old") / f"{seed}.jpg", seed)
    return tmp_path / "photos"


@pytest.fixture
def library(tmp_path: Path, folder: Path) -> Iterator[Library]:
    """All photos are in space 1, those of one folder in space 2, too."""
    with Library.open(tmp_path / "library", embedder="color_layout") as made:
        made.index([folder / "old", folder / "new"])
    with Library.open(tmp_path / "library", embedder="color_layout", options=OTHER) as made:
        made.index(folder / "old")
    with Library.open(tmp_path / "library") as opened:
        yield opened


def test_a_space_that_covers_a_part_says_so_and_is_filled(library: Library, folder: Path) -> None:
    assert library.coverage() is None
    covered = library.coverage(2)
    assert covered is not None
    assert covered.covered == "8 of 12 photos are in this space"
    key = library.fill_space("color_layout", OTHER)
    for _ in range(600):
        job = library.job(key)
        if job is not None and job.state != "running":
            break
        time.sleep(0.1)
    assert job is not None
    assert job.state == "done"
    assert library.coverage(2) is None
    assert [space.space_id for space in library.spaces() if space.current] == [1]  # until `use_space`
    found = library.search(folder / "new" / "9.jpg", space=2, k=1)
    assert Path(found.hits[0].photo.path).name == "9.jpg"


def test_what_two_spaces_found_alike(library: Library, folder: Path) -> None:
    first, second = (library.search(folder / "old" / "3.jpg", k=5, space=space) for space in (1, 2))
    both = first.shared_with(second)
    contents = [{hit.photo.content_id for hit in found.hits} for found in (first, second)]
    assert both == contents[0] & contents[1]
    assert first.hits[0].photo.content_id in both


def test_the_command_lists_both(library: Library, folder: Path) -> None:
    words = ["search", str(folder / "old" / "3.jpg"), "--beside", "2", "-k", "5"]
    words += ["--library", str(library.folder)]
    shown = CliRunner().invoke(cli, words, catch_exceptions=False).stdout
    assert "space 1, " in shown
    assert "space 2, " in shown
    assert "3.jpg  (in both)" in shown
    assert "8 of 12 photos are searched" in shown
    found = json.loads(CliRunner().invoke(cli, [*words, "--json"], catch_exceptions=False).stdout)
    assert (found["space"], found["beside"]["space"]) == (1, 2)
    assert found["beside"]["coverage"]["searched"] == 8
    ids = [{hit["photo_id"] for hit in part["hits"]} for part in (found, found["beside"])]
    assert set(found["in_both"]) == ids[0] & ids[1]
    spaces = ["spaces", "--library", str(library.folder)]
    assert "8 of 12 photos are in this space" in CliRunner().invoke(cli, spaces).stdout
    listed = json.loads(CliRunner().invoke(cli, [*spaces, "--json"]).stdout)["spaces"]
    assert [one["coverage"] and one["coverage"]["photos"] for one in listed] == [None, 12]


def test_a_part_and_the_least_score_in_both(library: Library, folder: Path) -> None:
    words = ["search", str(folder / "old" / "3.jpg"), "--beside", "2", "-k", "5"]
    words += ["--library", str(library.folder)]
    part = [*words, "--part", "0.1,0.1,0.5,0.5", "--json"]
    found = json.loads(CliRunner().invoke(cli, part, catch_exceptions=False).stdout)
    for answer, space in ((found, 1), (found["beside"], 2)):
        expected = library.search_region(folder / "old" / "3.jpg", (0.1, 0.1, 0.5, 0.5), k=5, space=space)
        assert [hit["photo_id"] for hit in answer["hits"]] == [hit.photo.photo_id for hit in expected.hits]
        assert answer["region"]["box"]["left"] == 0.1
    number = CliRunner().invoke(cli, [*words, "--min-score", "0.5"])
    assert (number.exit_code, "same or alike" in number.output) == (2, True)
    word = CliRunner().invoke(cli, [*words, "--min-score", "alike"])
    assert "not measured which score means 'alike' in space 1" in str(word.exception)
    both = CliRunner().invoke(cli, [*words, "--part", "0,0,1,1", "--min-score", "alike"])
    assert (both.exit_code, "means nothing with --part" in both.output) == (2, True)


def test_spaces_are_named_by_their_model(library: Library) -> None:
    for space in library.spaces():
        assert library.space_named(space.model).space_id == space.space_id
    assert library.space_named("1").space_id == 1
    with pytest.raises(SpaceError, match="there are: "):
        library.space_named("no-such-model")
