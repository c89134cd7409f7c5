"""How far the index that searches use lags behind the catalogue, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vitmae_search.cli.main import run
from vitmae_search.library import Library

Write = Callable[[Path, int], Path]


@pytest.mark.parametrize("behind", ["files", "database"])
def test_what_an_index_lacks_is_counted_until_a_search_brings_it(
    library: Library, photos: Path, write_photo: Write, pgvector_address: str, behind: str
) -> None:
    with Library.open(library.folder, vectors=pgvector_address) as remote:
        late, other = (library, remote) if behind == "files" else (remote, library)
        query = photos / "odd" / "1.jpg"
        late.search(query)
        lag = late.index_lag()
        assert (lag.photos, lag.vectors, lag.index.vectors) == (12, 12, 12)
        assert (lag.behind, lag.since, lag.advice) == ("nothing", None, None)

        before = datetime.now(UTC) - timedelta(seconds=1)
        for seed in (20, 21, 22):
            write_photo(photos / f"{seed}.jpg", seed)
        (photos / "even" / "2.jpg").unlink()
        other.index(photos)
        other.prune()
        lag = late.index_lag()
        assert (lag.photos, lag.vectors, lag.index.vectors) == (14, 14, 12)
        assert (lag.to_add, lag.to_remove, lag.behind) == (3, 1, "3 to add and 1 to remove")
        assert lag.since is not None
        assert before < lag.since < datetime.now(UTC) + timedelta(seconds=1)
        assert lag.advice is not None
        assert "search" in lag.advice

        late.search(query)
        late.index(photos)  # which writes the file
        assert late.index_lag().behind == "nothing"


def test_an_index_that_was_never_made_lacks_everything(library: Library, pgvector_address: str) -> None:
    with Library.open(library.folder, vectors=pgvector_address) as remote:
        lag = remote.index_lag()
    assert (lag.index.vectors, lag.to_add, lag.to_remove) == (0, 12, 0)


def test_status_says_how_far_behind_and_what_to_do(
    library: Library, pgvector_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["status", "--library", str(library.folder), "--vectors", pgvector_address]
    assert run(words) == 0
    told = capsys.readouterr().out
    assert "behind   1: 12 to add since " in told
    assert "a search in this space, or the next `vitmae-search index`, brings it up to date" in told
    assert run([*words, "--json"]) == 0
    (space,) = json.loads(capsys.readouterr().out)["spaces"]
    assert space["lag"]["to_add"] == 12
    assert space["lag"]["photos"] == 12
    assert datetime.fromisoformat(space["lag"]["since"]) <= datetime.now(UTC)


def test_a_database_that_is_away_is_said(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    away = "postgresql://127.0.0.1:1/nothing"
    assert run(["status", "--library", str(library.folder), "--vectors", away]) == 0
    told = capsys.readouterr().out
    assert "behind   1: not known, as it does not answer; start the vector database" in told
    with Library.open(library.folder, vectors=away) as remote:
        assert (remote.index_lag().to_add, remote.index_lag().vectors) == (None, 12)
