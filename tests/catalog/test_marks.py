"""Marks, albums and saved searches belong to contents by their digests, and every change can be undone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from vitmae_search.catalog import Catalog, CatalogWriter
from vitmae_search.catalog.undo import KEPT
from vitmae_search.errors import LibraryError
from vitmae_search.records import Marks, SavedSearch, SearchFilter


@pytest.fixture
def writer(folder, make):
    with CatalogWriter.open_writer(folder) as opened:
        space = make.space(opened).space_id
        opened.record_batch(space, [make.item(f"/p/{word}.jpg", word) for word in "abc"])
        opened.record_batch(space, [make.item("/p/copy.jpg", "a", known=True)])
        yield opened


def ids(writer, *words: str) -> list[int]:
    found = writer.photo_ids_at([f"/p/{word}.jpg" for word in words])
    return [found[f"/p/{word}.jpg"] for word in words]


def said(writer, make, word: str) -> Marks:
    return writer.marks([make.digest(word)]).get(make.digest(word), Marks())


def state(catalog: Catalog) -> tuple[object, ...]:
    """All that a person said, as anyone may ask it."""
    digests = sorted(catalog.digests())
    return catalog.marks(digests), catalog.albums(), catalog.saved_searches()


def test_copies_share_what_is_said(writer, make):
    assert writer.mark(ids(writer, "copy", "a", "b"), {"favourite": True}, "") == 2
    assert said(writer, make, "a").favourite
    assert writer.mark(ids(writer, "a"), {"rating": 3}, "") == 1
    assert said(writer, make, "a") == Marks(favourite=True, rating=3)
    found = writer.photos(SearchFilter(favourite=True))
    assert {photo.path for photo in found} == {"/p/a.jpg", "/p/copy.jpg", "/p/b.jpg"}
    assert writer.count_photos(SearchFilter(min_rating=3)) == 2
    assert writer.count_photos(SearchFilter(min_rating=4)) == 0


def test_albums_are_filters_with_counts(writer, make):
    writer.add_to_album("Lofoten", ids(writer, "a", "b"))
    writer.add_to_album("empty", [])
    assert writer.albums() == {"Lofoten": 2, "empty": 0}
    assert writer.searchable_ids(1, SearchFilter(album="Lofoten")).tolist() == [1, 2]
    writer.mark_missing(ids(writer, "b"))
    assert writer.albums() == {"Lofoten": 1, "empty": 0}
    writer.rename_album("Lofoten", "Norway")
    assert said(writer, make, "a").albums == ("Norway",)
    writer.remove_from_album("Norway", ids(writer, "a"))
    assert writer.albums() == {"Norway": 0, "empty": 0}
    writer.delete_album("Norway")
    assert writer.albums() == {"empty": 0}


def test_they_go_with_filters_of_contents(writer, make):
    writer.record_batch(1, [make.item("/p/d.jpg", "d", camera="Canon")])
    writer.mark(ids(writer, "a", "d"), {"favourite": True, "rating": 2}, "")
    writer.add_to_album("x", ids(writer, "b", "d"))
    where = SearchFilter(camera="canon", favourite=True, min_rating=1, album="x", under="/p")
    assert [photo.path for photo in writer.photos(where)] == ["/p/d.jpg"]
    assert writer.searchable_ids(1, where).tolist() == [4]


def test_what_is_not_there_is_said(writer):
    writer.add_to_album("one", [])
    writer.add_to_album("two", [])
    with pytest.raises(LibraryError, match="no album 'three'; there are: one, two"):
        writer.delete_album("three")
    with pytest.raises(LibraryError, match="an album 'two' already"):
        writer.rename_album("one", "two")
    with pytest.raises(LibraryError, match="no saved search 'x'"):
        writer.delete_search("x")


def test_a_content_that_goes_and_comes_back_keeps_what_is_said(writer, make):
    """As after `prune`, or where a file could not be decoded for a while."""
    writer.mark(ids(writer, "b"), {"rating": 5, "keep": True}, "")
    writer.add_to_album("best", ids(writer, "b"))
    writer.save_search(SavedSearch("like b", more=((ids(writer, "b")[0], 2.0),)))
    before = said(writer, make, "b")
    writer.remove_photos(ids(writer, "b"))
    assert writer.content_id(make.digest("b")) is None
    assert writer.saved_searches()[0].more == ()
    writer.record_batch(1, [make.item("/p/elsewhere.jpg", "b")])
    assert said(writer, make, "b") == before == Marks(rating=5, keep=True, albums=("best",))
    assert writer.saved_searches()[0].more == ((ids(writer, "elsewhere")[0], 2.0),)


def test_an_edited_file_keeps_what_is_said(writer, make):
    writer.mark(ids(writer, "b", "a"), {"favourite": True}, "")
    writer.add_to_album("best", ids(writer, "b", "a"))
    writer.record_batch(1, [make.item("/p/b.jpg", "b, cropped"), make.item("/p/a.jpg", "a, cropped")])
    for word in ("b, cropped", "a, cropped", "a"):  # a's copy was not edited
        assert said(writer, make, word) == Marks(favourite=True, albums=("best",))


def test_an_edited_file_keeps_what_is_said_of_its_new_content(writer, make):
    writer.mark(ids(writer, "b"), {"rating": 1}, "")
    writer.mark(ids(writer, "c"), {"rating": 5}, "")
    writer.record_batch(1, [make.item("/p/b.jpg", "c", known=True)])
    assert said(writer, make, "c").rating == 5


def test_photos_that_swap_their_paths_are_not_edited(writer, make):
    writer.mark(ids(writer, "b"), {"rating": 1}, "")
    b, c = ids(writer, "b", "c")
    swapped = [make.item("/p/c.jpg", "b", known=True, photo_id=b)]
    writer.record_batch(1, [*swapped, make.item("/p/b.jpg", "c", known=True, photo_id=c)])
    assert (said(writer, make, "b").rating, said(writer, make, "c").rating) == (1, 0)


def test_a_forgotten_folder_loses_what_was_said(writer, make):
    writer.record_batch(1, [make.item("/q/d.jpg", "d"), make.item("/q/a.jpg", "a", known=True)])
    inside = [make.photo_at(writer, path).photo_id for path in ("/q/d.jpg", "/q/a.jpg")]
    writer.mark(inside, {"rating": 2}, "")
    writer.add_to_album("some", inside)
    writer.forget("/q")
    assert said(writer, make, "d") == Marks()
    assert said(writer, make, "a") == Marks(rating=2, albums=("some",))


def test_a_saved_search_comes_back_as_it_was(writer):
    from datetime import datetime

    a, b = ids(writer, "a", "b")
    where = SearchFilter(under="/p", after=datetime(2020, 1, 2), camera="x", min_rating=2, album="y")
    for score in (None, "alike", 0.5):
        saved = SavedSearch("trip", ((a, 1.0), (b, 0.5)), ((b, 1.0),), where, score)
        writer.save_search(saved)
        assert writer.saved_searches() == [saved]


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("mark"), st.sets(st.sampled_from("abc")), st.booleans(), st.integers(0, 5)),
        st.tuples(st.sampled_from(["add", "remove"]), st.sampled_from("XY"), st.sets(st.sampled_from("abc"))),
        st.tuples(st.just("delete"), st.sampled_from("XY")),
        st.tuples(st.just("rename"), st.sampled_from("XY"), st.sampled_from("XYZ")),
        st.tuples(st.sampled_from(["save", "unsave"]), st.sampled_from("st")),
    ),
    max_size=12,
)


def change(writer: CatalogWriter, kind: str, *words) -> None:
    if kind == "mark":
        writer.mark(ids(writer, *words[0]), {"favourite": words[1], "rating": words[2]}, "marked")
    elif kind == "add":
        writer.add_to_album(words[0], ids(writer, *words[1]))
    elif kind == "remove":
        writer.remove_from_album(words[0], ids(writer, *words[1]))
    elif kind == "delete":
        writer.delete_album(words[0])
    elif kind == "rename":
        writer.rename_album(*words)
    elif kind == "save":
        writer.save_search(SavedSearch(words[0], where=SearchFilter(camera=words[0])))
    else:
        writer.delete_search(words[0])


@given(changes=CHANGES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_each_change_is_undone_in_turn(writer, changes):
    while writer.undo() is not None:  # what an earlier example left
        pass
    states = []
    for one in changes:
        before, last = state(writer), changed(writer)
        try:
            change(writer, *one)
        except LibraryError:
            assert (state(writer), changed(writer)) == (before, last)
        if changed(writer) != last:
            states.append(before)
    for expected in reversed(states):
        assert writer.undo() is not None
        assert state(writer) == expected
    assert writer.undo() is None


def changed(writer: CatalogWriter) -> int:
    """The number of the last change that can be undone."""
    with writer._database.read_transaction() as connection:
        return connection.exec_driver_sql("SELECT coalesce(max(change_id), 0) FROM changes").scalar_one()


def test_so_many_changes_are_kept(writer):
    for i in range(KEPT + 5):
        writer.add_to_album(f"album {i:02d}", [])
    undone = []
    while (text := writer.undo()) is not None:
        undone.append(text)
    assert len(undone) == KEPT
    assert undone[0] == "0 photos into the album album 24"
    assert list(writer.albums()) == [f"album {i:02d}" for i in range(5)]
    assert writer.last_change() is None


CHILD = """
import sys
from pathlib import Path
from vitmae_search.catalog import CatalogWriter, undo
writer = CatalogWriter.open_writer(Path(sys.argv[1]), wait=10)
ids = [photo.photo_id for photo in writer.photos()]
hang, n = sys.argv[2] == "inside", 0
if hang:
    from vitmae_search.catalog import marks
    real = marks.undo.record
    def stop(*arguments):
        real(*arguments)
        print("inside", flush=True)
        sys.stdin.read()
    marks.undo.record = stop
while True:
    writer.add_to_album(f"{n}", ids)
    print("done", flush=True)
    n += 1
"""


@pytest.mark.parametrize("where", ["inside", "between"])
def test_a_kill_leaves_whole_changes(folder, make, where):
    with CatalogWriter.open_writer(folder) as writer:
        writer.record_batch(make.space(writer).space_id, [make.item(f"/p/{w}.jpg", w) for w in "abc"])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, folder, where],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    assert child.stdout is not None
    for _ in range(1 if where == "inside" else 3):
        assert child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    with CatalogWriter.open_writer(folder, wait=5) as writer:
        assert writer.check() == []
        assert set(writer.albums().values()) <= {3}
        assert bool(writer.albums()) == (where == "between")
        assert (writer.undo() is None) == (where == "inside")


def test_a_library_of_the_version_before_has_nothing_said(folder: Path, make):
    import sqlite3

    folder.mkdir()
    raw = sqlite3.connect(folder / "catalogue.sqlite3")
    raw.executescript(Path(__file__).with_name("version_8.sql").read_text("utf-8"))
    raw.close()
    with CatalogWriter.open_writer(folder) as writer:
        assert (writer.albums(), writer.saved_searches(), writer.undo()) == ({}, [], None)
        photo = writer.photos()[0]
        writer.mark([photo.photo_id], {"rating": 4}, "rated")
        assert writer.marks([photo.digest]) == {photo.digest: Marks(rating=4)}
        assert writer.check() == []
