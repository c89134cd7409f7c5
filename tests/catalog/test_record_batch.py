"""What one batch does to photos, contents, vectors and failures."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from vitmae_search.catalog import Catalog, CatalogWriter
from vitmae_search.errors import SpaceError, VitmaeSearchError
from vitmae_search.records import Failure, Stamp


def everything(writer: CatalogWriter, space: int) -> object:
    """All that a batch may change, as one comparable value."""
    source = writer.vector_source(space)
    return (
        writer.photos(missing=None),
        writer.failures(),
        [(ids.tolist(), vectors.tolist()) for ids, vectors in source.added_since(0)],
        source.removed_since(0).tolist(),
        writer.spaces(),
        writer.status(),
    )


def test_a_photo_comes_back_as_it_was_recorded(writer, space, make):
    item = make.item("/p/a.jpg", "cat", size=123, mtime_ns=456)
    assert writer.record_batch(space, [item]) == ()
    photo = make.photo_at(writer, "/p/a.jpg")
    assert photo is not None
    assert (photo.path, photo.size, photo.mtime_ns, photo.missing) == ("/p/a.jpg", 123, 456, False)
    assert photo.digest == make.digest("cat")
    assert photo.metadata == item.metadata
    assert writer.photo(photo.photo_id) == photo
    assert writer.content_id(photo.digest) == photo.content_id
    np.testing.assert_array_equal(writer.vector(space, photo.content_id), make.vector("cat"))
    [known] = writer.known_files("/p", space)
    assert (known.photo_id, known.stamp, known.embedded) == (photo.photo_id, item.stamp, True)
    assert known.stamp.device == 7


@pytest.mark.sqlite_only("refuses with a trigger of SQLite")
@pytest.mark.parametrize("table", ["contents", "photos", "embeddings", "failures", "tombstones", "spaces"])
def test_an_error_in_mid_batch_leaves_nothing_of_it(writer, space, make, table):
    """A trigger makes SQLite itself refuse one of the statements, wherever in the transaction it is."""
    writer.record_batch(space, [make.item("/p/a.jpg", "cat"), make.item("/p/b.jpg", "dog")])
    before = everything(writer, space)
    with writer._transaction() as connection:
        event = "UPDATE" if table == "spaces" else "INSERT"
        connection.exec_driver_sql(
            f"CREATE TRIGGER refuse BEFORE {event} ON {table} BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    a = make.photo_at(writer, "/p/a.jpg")
    batch = [make.item("/p/a.jpg", "owl", photo_id=a.photo_id, size=2), make.item("/p/c.jpg", "hen")]
    with pytest.raises(Exception, match="refused"):
        writer.record_batch(space, batch, [make.failure("/p/d.jpg")])
    assert everything(writer, space) == before
    with writer._transaction() as connection:
        connection.exec_driver_sql("DROP TRIGGER refuse")
    writer.record_batch(space, batch, [make.failure("/p/d.jpg")])
    assert {p.path for p in writer.photos()} == {"/p/a.jpg", "/p/b.jpg", "/p/c.jpg"}
    assert writer.check() == []


@pytest.mark.parametrize("moment", ["do_execute", "after_cursor_execute", "commit"])
def test_an_interrupt_in_mid_batch_leaves_nothing_and_a_writer_that_goes_on(writer, space, make, moment):
    """Ctrl-C comes at any moment; the run is then marked as ended with the same writer."""
    writer.record_batch(space, [make.item("/p/a.jpg", "cat")])
    writer.start_run("key", "index", {})
    before = everything(writer, space)
    engine = writer._database._write_engine

    def interrupt(*arguments):
        if moment == "commit" or any("INSERT INTO embeddings" in str(a) for a in arguments):
            raise KeyboardInterrupt

    event.listen(engine, moment, interrupt)
    with pytest.raises(KeyboardInterrupt):
        writer.record_batch(space, [make.item("/p/b.jpg", "dog")], [make.failure("/p/c.jpg")])
    event.remove(engine, moment, interrupt)
    assert everything(writer, space) == before
    writer.finish_run("key", "cancelled")
    assert writer.run("key").state == "cancelled"
    writer.record_batch(space, [make.item("/p/b.jpg", "dog")])
    assert writer.count_photos() == 2
    assert writer.check() == []


def test_a_batch_shows_to_others_wholly_or_not_at_all(address, writer, space, make, folder):
    with Catalog.open(folder, address) as reader:
        with writer._transaction() as connection:
            connection.exec_driver_sql("UPDATE spaces SET revision = revision + 1")
            assert reader.space(space).revision == 0
        assert reader.space(space).revision == 1


def test_copies_share_one_vector(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat"), make.item("/p/b.jpg", "cat")])
    assert writer.record_batch(space, [make.item("/p/c.jpg", "cat", known=True)]) == ()
    ids = writer.searchable_ids(space)
    assert len(ids) == 1
    assert [photo.path for photo in writer.photos_of(ids)[ids[0]]] == ["/p/a.jpg", "/p/b.jpg", "/p/c.jpg"]
    assert writer.status().contents == 1
    assert list(writer.vector_source(space).added_since(1)) == []  # the copy changed no vector


def test_a_vector_that_is_there_stays(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat")])
    ids = writer.searchable_ids(space).tolist()
    writer.record_batch(space, [make.item("/p/a.jpg", "cat"), make.item("/p/b.jpg", "cat")])
    assert writer.searchable_ids(space).tolist() == ids
    assert list(writer.vector_source(space).added_since(1)) == []
    assert len(writer.vector_source(space).removed_since(1)) == 0


@pytest.mark.sqlite_only("inserts with SQLite's own statements")
def test_rows_that_would_point_to_nothing_are_refused(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat")])
    for statement in ("DELETE FROM contents", "DELETE FROM spaces", "UPDATE photos SET content_id = 99"):
        with pytest.raises(IntegrityError), writer._transaction() as connection:
            connection.exec_driver_sql(statement)


def test_a_move_keeps_the_photo_and_its_vector(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat")])
    before = make.photo_at(writer, "/p/a.jpg")
    writer.record_batch(space, [make.item("/q/z.jpg", "cat", known=True, photo_id=before.photo_id)])
    after = writer.photo(before.photo_id)
    assert after == replace(before, path="/q/z.jpg")
    assert make.photo_at(writer, "/p/a.jpg") is None
    assert writer.vector_source(space).removed_since(0).tolist() == []


def test_photos_that_swap_names_keep_their_ids(writer, space, make):
    writer.record_batch(space, [make.item(f"/p/{n}.jpg", n) for n in "abc"])
    ids = {n: make.photo_at(writer, f"/p/{n}.jpg").photo_id for n in "abc"}
    moved = {"a": "b", "b": "c", "c": "a"}
    writer.record_batch(
        space, [make.item(f"/p/{to}.jpg", n, known=True, photo_id=ids[n]) for n, to in moved.items()]
    )
    for name, to in moved.items():
        photo = make.photo_at(writer, f"/p/{to}.jpg")
        assert (photo.photo_id, photo.digest) == (ids[name], make.digest(name))
    assert writer.check() == []


def test_a_move_onto_another_photo_replaces_it(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat"), make.item("/p/b.jpg", "dog")])
    a, b = make.photo_at(writer, "/p/a.jpg"), make.photo_at(writer, "/p/b.jpg")
    writer.record_batch(space, [make.item("/p/b.jpg", "cat", known=True, photo_id=a.photo_id)])
    assert [photo.photo_id for photo in writer.photos()] == [a.photo_id]
    assert writer.photo(b.photo_id) is None
    assert writer.content_id(make.digest("dog")) is None
    assert len(writer.vector_source(space).removed_since(0)) == 1


def test_a_new_file_where_a_photo_moves_away_in_the_same_batch(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat")])
    a = make.photo_at(writer, "/p/a.jpg")
    writer.record_batch(
        space,
        [make.item("/p/a.jpg", "new"), make.item("/p/b.jpg", "cat", known=True, photo_id=a.photo_id)],
    )
    assert make.photo_at(writer, "/p/b.jpg").photo_id == a.photo_id
    assert make.photo_at(writer, "/p/a.jpg").digest == make.digest("new")
    assert make.photo_at(writer, "/p/a.jpg").photo_id != a.photo_id
    assert writer.check() == []


def test_a_changed_file_keeps_its_id_and_loses_its_old_content(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat")])
    before = make.photo_at(writer, "/p/a.jpg")
    [old] = writer.searchable_ids(space)
    writer.record_batch(space, [make.item("/p/a.jpg", "dog", size=2)])
    after = make.photo_at(writer, "/p/a.jpg")
    assert after.photo_id == before.photo_id
    assert after.digest == make.digest("dog")
    assert writer.content_id(before.digest) is None
    assert writer.vector_source(space).removed_since(0).tolist() == [old]
    assert old not in writer.searchable_ids(space)


def test_the_last_photo_takes_its_content_along_in_every_space(writer, make):
    first, second = make.space(writer, "first"), make.space(writer, "second")
    for space in (first, second):
        writer.record_batch(space.space_id, [make.item("/p/a.jpg", "cat"), make.item("/p/b.jpg", "cat")])
    writer.remove_photos([make.photo_at(writer, "/p/a.jpg").photo_id])
    assert writer.content_id(make.digest("cat")) is not None
    for space in writer.spaces():
        assert len(writer.vector_source(space.space_id).removed_since(0)) == 0
    writer.remove_photos([make.photo_at(writer, "/p/b.jpg").photo_id])
    assert writer.content_id(make.digest("cat")) is None
    for space in writer.spaces():
        assert space.vectors == 0
        assert len(writer.vector_source(space.space_id).removed_since(1)) == 1
    assert writer.check() == []


def test_ids_are_never_used_again(writer, space, make):
    seen_photos, seen_vectors = set(), set()
    for round_ in range(4):
        writer.record_batch(space, [make.item(f"/p/{n}.jpg", f"{round_}{n}") for n in range(3)])
        photos = {photo.photo_id for photo in writer.photos()}
        vectors = set(writer.searchable_ids(space).tolist())
        assert not photos & seen_photos
        assert not vectors & seen_vectors
        seen_photos |= photos
        seen_vectors |= vectors
        writer.remove_photos(list(photos))
    assert len(seen_vectors) == 12


def test_missing_photos_keep_all_but_are_not_found(writer, space, make):
    writer.record_batch(
        space,
        [make.item("/p/a.jpg", "cat"), make.item("/p/b.jpg", "cat"), make.item("/p/c.jpg", "dog")],
    )
    a, c = make.photo_at(writer, "/p/a.jpg"), make.photo_at(writer, "/p/c.jpg")
    writer.mark_missing([a.photo_id, c.photo_id])
    [cat] = writer.searchable_ids(space)
    [dog] = writer.hidden_ids(space)
    assert [photo.path for photo in writer.photos_of([cat])[cat]] == ["/p/b.jpg", "/p/a.jpg"]
    assert [photo.missing for photo in writer.photos_of([dog])[dog]] == [True]
    assert writer.count_photos() == 1
    assert [photo.path for photo in writer.photos(missing=True)] == ["/p/c.jpg", "/p/a.jpg"]
    assert (writer.status().photos, writer.status().missing) == (1, 2)
    assert writer.vector(space, c.content_id) is not None
    writer.mark_found([c.photo_id])
    assert set(writer.searchable_ids(space)) == {cat, dog}
    assert writer.hidden_ids(space).tolist() == []
    writer.record_batch(space, [make.item("/p/a.jpg", "cat", known=True)])  # it came back, touched
    assert writer.photo(a.photo_id).missing is False


def test_a_drive_under_another_number(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat"), make.item("/p/b.jpg", "dog")])
    photo_id = make.photo_at(writer, "/p/a.jpg").photo_id
    writer.record_stamps({photo_id: Stamp("/p/a.jpg", 1, 1, 99, 5, 6)})
    assert [known.stamp.device for known in writer.known_files("/p", space)] == [99, 7]


def test_a_file_that_is_not_at_fault_keeps_its_row(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat")])
    closed = Failure("/p/a.jpg", "Permission denied", 1, 1, ctime_ns=9)
    writer.record_batch(space, [], [closed])
    assert make.photo_at(writer, "/p/a.jpg") is not None
    assert writer.failures(space) == [closed]
    writer.record_batch(space, [], [replace(closed, size=2)])
    assert make.photo_at(writer, "/p/a.jpg") is None, "it is another file by now"


def test_a_file_that_changed_under_its_date_loses_its_row(writer, space, make):
    item = make.item("/p/a.jpg", "cat")
    item = replace(item, stamp=Stamp("/p/a.jpg", 1, 1, 7, 5, 6))
    for number in (space, make.space(writer, "second").space_id):
        writer.record_batch(number, [item])
    writer.record_batch(space, [], [Failure("/p/a.jpg", "bad", 1, 1, 5, "v")])
    assert make.photo_at(writer, "/p/a.jpg") is not None, "another space has its vector"
    writer.record_batch(space, [], [Failure("/p/a.jpg", "bad", 1, 1, 8, "v")])
    assert make.photo_at(writer, "/p/a.jpg") is None


def test_a_failure_takes_the_place_of_a_photo_that_changed(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat")])
    writer.record_batch(space, [], [make.failure("/p/a.jpg", "truncated", size=2)])
    assert make.photo_at(writer, "/p/a.jpg") is None
    assert writer.content_id(make.digest("cat")) is None
    assert writer.failures(space) == [make.failure("/p/a.jpg", "truncated", size=2)]
    assert writer.status().failed == 1
    writer.record_batch(space, [make.item("/p/a.jpg", "dog", size=3)])
    assert writer.failures() == []
    assert writer.check() == []


def test_an_unchanged_file_that_fails_goes_where_no_space_has_it(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat")])
    writer.record_batch(space, [], [make.failure("/p/a.jpg", "refused by the model")])
    assert writer.photos(missing=None) == []
    assert len(writer.failures(space)) == 1
    assert writer.check() == []


def test_a_failure_in_one_space_leaves_the_vector_of_another(writer, make):
    first, second = make.space(writer, "first").space_id, make.space(writer, "second").space_id
    writer.record_batch(first, [make.item("/p/a.jpg", "cat")])
    writer.record_batch(second, [], [make.failure("/p/a.jpg", "too narrow for this model")])
    assert len(writer.searchable_ids(first)) == 1
    assert writer.failures(first) == []
    assert len(writer.failures(second)) == 1
    writer.record_batch(second, [], [make.failure("/p/a.jpg", "truncated", size=2)])
    assert make.photo_at(writer, "/p/a.jpg") is None


def test_a_failure_elsewhere_ends_when_the_file_changes(writer, make):
    first, second = make.space(writer, "first").space_id, make.space(writer, "second").space_id
    writer.record_batch(second, [], [make.failure("/p/a.jpg"), make.failure("/p/b.jpg")])
    writer.record_batch(first, [make.item("/p/a.jpg", "cat"), make.item("/p/b.jpg", "dog", size=2)])
    assert [failure.path for failure in writer.failures(second)] == ["/p/a.jpg"]


def test_failures_of_all_spaces_name_each_file_once(writer, make):
    first, second = make.space(writer, "first").space_id, make.space(writer, "second").space_id
    writer.record_batch(first, [], [make.failure("/p/a.jpg", "old"), make.failure("/q/b.jpg")])
    writer.record_batch(second, [], [make.failure("/p/a.jpg", "new")])
    assert [(f.path, f.reason) for f in writer.failures()] == [("/p/a.jpg", "new"), ("/q/b.jpg", "truncated")]
    assert [f.path for f in writer.failures(first, under="/q")] == ["/q/b.jpg"]
    writer.clear_failures(["/p/a.jpg"])
    assert [f.path for f in writer.failures()] == ["/q/b.jpg"]


def test_what_has_no_vector_comes_back_unrecorded(writer, space, make):
    """Between look-up and recording another batch may have deleted the content."""
    writer.record_batch(space, [make.item("/p/a.jpg", "cat")])
    writer.record_batch(space, [make.item("/p/a.jpg", "dog", size=2)])
    late, good = make.item("/p/copy.jpg", "cat", known=True), make.item("/p/b.jpg", "owl")
    assert writer.record_batch(space, [late, good]) == (late,)
    assert {photo.path for photo in writer.photos()} == {"/p/a.jpg", "/p/b.jpg"}
    second = make.space(writer, "second").space_id
    copy = make.item("/p/copy.jpg", "owl", known=True)
    assert writer.record_batch(second, [copy]) == (copy,)  # known, but without a vector in that space
    assert writer.record_batch(second, [copy, make.item("/p/b.jpg", "owl")]) == ()


@pytest.mark.parametrize(
    "vector",
    [np.ones(3, np.float32), np.full(8, np.nan, np.float32), np.ones(8, np.float32), np.zeros(8, np.float32)],
    ids=["length", "nan", "not unit", "zero"],
)
def test_vectors_that_do_not_belong_are_refused_by_name(writer, space, make, vector):
    bad = replace(make.item("/p/bad.jpg", "cat"), vector=vector)
    with pytest.raises(SpaceError, match=r"bad\.jpg"):
        writer.record_batch(space, [make.item("/p/a.jpg", "dog"), bad])
    assert writer.count_photos() == 0


def test_one_photo_cannot_go_to_two_places(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat")])
    row = make.photo_at(writer, "/p/a.jpg").photo_id
    with pytest.raises(ValueError, match="photo_id"):
        writer.record_batch(space, [make.item(f"/p/{n}.jpg", "cat", known=True, photo_id=row) for n in "bc"])


def test_a_row_that_is_gone_is_made_anew(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat", photo_id=999)])
    assert make.photo_at(writer, "/p/a.jpg") is not None


def test_a_path_that_comes_twice_is_one_photo(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat"), make.item("/p/a.jpg", "dog", size=2)])
    assert [photo.digest for photo in writer.photos()] == [make.digest("dog")]
    assert writer.check() == []


def test_rows_stay_aligned(writer, space, make):
    words = [f"word{n}" for n in range(200)]
    items = [make.item(f"/p/{word}.jpg", word) for word in words]
    failures = [make.failure(f"/p/bad{n}.jpg") for n in range(30)]
    writer.record_batch(space, items[::2], failures)
    writer.record_batch(space, items[1::2])
    ids = writer.searchable_ids(space)
    assert len(ids) == 200
    vectors = writer.vectors(space, ids[::-1])
    for number, vector in zip(ids[::-1], vectors, strict=True):
        [photo] = writer.photos_of([number])[number]
        np.testing.assert_array_equal(vector, make.vector(photo.path[3:-4]))


def test_an_unknown_vector_is_named(writer, space, make):
    with pytest.raises(SpaceError, match="no vector 17"):
        writer.vectors(space, [17])
    assert writer.photos_of([17]) == {}


def test_odd_stamps_and_texts_survive(writer, space, make):
    wide = make.item("/p/a.jpg", "cat", camera="bad \ud800 camera", mtime_ns=253_402_300_799 * 10**9)
    wide = replace(wide, stamp=replace(wide.stamp, device=2**64 - 1))
    writer.record_batch(space, [wide], [make.failure("/p/b.jpg", "odd \udcff text")])
    [known] = writer.known_files("/p", space)
    assert known.stamp == wide.stamp
    assert known.stamp.device == 2**64 - 1
    assert writer.photos()[0].metadata.camera == "bad ? camera"
    assert writer.failures()[0].reason == "odd ? text"


def test_a_closed_writer_says_so(folder, make):
    writer = CatalogWriter.open_writer(folder)
    space = make.space(writer).space_id
    writer.close()
    writer.close()
    with pytest.raises(VitmaeSearchError, match="closed"):
        writer.record_batch(space, [])
    with pytest.raises(VitmaeSearchError, match="closed"):
        writer.photos()
    # One plain file is left, which any SQLite can read.
    with sqlite3.connect(folder / "catalogue.sqlite3") as plain:
        assert plain.execute("SELECT count(*) FROM spaces").fetchone() == (1,)
    plain.close()


def test_what_a_photo_says_when_it_is_read_again_is_kept(writer, space, make):
    """As by a version that reads more, into a space of its own."""
    writer.record_batch(space, [make.item("/p/a.jpg", "a"), make.item("/p/b.jpg", "b")])
    before = make.photo_at(writer, "/p/a.jpg")
    other = make.space(writer, "second").space_id
    item = make.item("/p/a.jpg", "a", taken_at=datetime(2015, 6, 7), camera="Зенит")
    writer.record_batch(
        other, [replace(item, metadata=replace(item.metadata, taken_from="XMP", notes=("n",)))]
    )
    after = make.photo_at(writer, "/p/a.jpg")
    assert (after.photo_id, after.content_id) == (before.photo_id, before.content_id)
    assert after.date == (datetime(2015, 6, 7), "XMP")
    assert (after.metadata.camera, after.metadata.notes) == ("Зенит", ("n",))
    assert [photo.path for photo in writer.photos()] == ["/p/a.jpg", "/p/b.jpg"], (
        "in the order of their dates"
    )
    writer.record_batch(space, [make.item("/p/c.jpg", "a", known=True)])
    assert make.photo_at(writer, "/p/c.jpg").metadata == after.metadata


def test_a_row_that_another_run_has_moved_is_not_moved_again(writer, space, make):
    writer.record_batch(space, [make.item("/p/old.jpg", "cat")])
    old = make.photo_at(writer, "/p/old.jpg")
    for path in ("/p/moved.jpg", "/p/copy.jpg"):
        item = replace(make.item(path, "cat", known=True, photo_id=old.photo_id), row_path="/p/old.jpg")
        assert writer.record_batch(space, [item]) == ()
    assert make.photo_at(writer, "/p/moved.jpg").photo_id == old.photo_id
    assert {photo.path for photo in writer.photos()} == {"/p/moved.jpg", "/p/copy.jpg"}


def test_a_row_that_another_run_has_found_is_not_marked_as_unseen(writer, space, make):
    for name in ("gone", "old", "changed"):
        writer.record_batch(space, [make.item(f"/p/{name}.jpg", name)])
    seen = list(writer.known_files("/p", space))
    old = make.photo_at(writer, "/p/old.jpg")
    writer.record_batch(space, [make.item("/p/moved.jpg", "old", known=True, photo_id=old.photo_id)])
    writer.record_batch(space, [make.item("/p/changed.jpg", "else", mtime_ns=2)])
    assert writer.mark_unseen(seen) == 1
    assert {photo.path for photo in writer.photos(missing=True)} == {"/p/gone.jpg"}
