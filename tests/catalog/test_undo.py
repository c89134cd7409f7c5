"""`undo` takes back the change that is meant, or nothing, with other writers at work."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Unfinished
from pathlib import Path

import pytest

from vitmae_search.catalog import CatalogWriter, marks, undo
from vitmae_search.errors import LibraryError
from vitmae_search.records import Change


@pytest.fixture
def photo(writer: CatalogWriter, make) -> int:
    writer.record_batch(make.space(writer).space_id, [make.item("/p/a.jpg", "a")])
    return writer.photos()[0].photo_id


@pytest.fixture
def other(writer: CatalogWriter, address: str, tmp_path: Path) -> Iterator[CatalogWriter]:
    """Another writer of the same catalogue, as on another machine."""
    with CatalogWriter.open_writer(tmp_path / "other", address) as opened:
        yield opened


def rating(writer: CatalogWriter, make) -> int:
    found = writer.marks([make.digest("a")]).get(make.digest("a"))
    return found.rating if found else 0


def rate(writer: CatalogWriter, photo: int, stars: int) -> Change:
    writer.mark([photo], {"rating": stars}, f"rating {stars}")
    last = writer.last_change()
    assert last is not None
    return last


def test_another_change_than_the_one_that_is_meant_is_not_undone(writer, photo, make):
    mine, theirs = rate(writer, photo, 3), rate(writer, photo, 5)
    with pytest.raises(LibraryError) as refused:
        writer.undo(mine)
    assert str(refused.value) == (
        "Nothing was undone: after this change (rating 3) another one was made: rating 5. "
        "Only the newest change can be undone; if that one should go, too, undo it first."
    )
    assert (rating(writer, make), writer.last_change()) == (5, theirs)
    assert (writer.undo(theirs), writer.undo(mine), rating(writer, make)) == ("rating 5", "rating 3", 0)


def test_a_change_is_not_undone_twice(writer, photo, make):
    first, second = rate(writer, photo, 3), rate(writer, photo, 5)
    assert writer.undo(second) == "rating 5"
    for meant in (second, second):
        with pytest.raises(LibraryError, match="this change was taken back already: rating 5"):
            writer.undo(meant)
    assert (rating(writer, make), writer.last_change()) == (3, first)
    writer.undo(first)
    with pytest.raises(LibraryError, match="taken back already"):
        writer.undo(first)
    assert (writer.undo(), writer.last_change()) == (None, None)


@pytest.mark.postgresql_only("a file has one writer")
def test_undo_waits_for_a_change_that_is_being_made(writer, other, photo, make):
    mine = rate(writer, photo, 3)
    with ThreadPoolExecutor(1) as pool:
        with other._database.write_transaction() as connection:
            undo.lock(connection)
            marks.mark(connection, [photo], {"rating": 5}, "rating 5")
            undoing = pool.submit(writer.undo, mine)
            with pytest.raises(Unfinished):
                undoing.result(0.5)
            assert writer.last_change() == mine, "readers go on"
        with pytest.raises(LibraryError, match=r"\(rating 3\) another one was made: rating 5"):
            undoing.result(30)
    assert rating(writer, make) == 5


@pytest.mark.postgresql_only("a file has one writer")
def test_changes_of_several_writers_are_undone_one_by_one(writer, other, photo, make):
    def many(one: CatalogWriter, start: int) -> None:
        for i in range(start, start + 10):
            one.mark([photo], {"rating": i % 5 + 1}, f"{i % 5 + 1}")

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(many, writer, 0), pool.submit(many, other, 2)]:
            each.result()
    while (last := writer.last_change()) is not None:
        assert str(rating(writer, make)) == last.text, "each recorded what the one before it left"
        writer.undo(last)
    assert rating(writer, make) == 0
