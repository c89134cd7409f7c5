"""Who follows the revisions of a space has the attributes that filters ask for, whatever changed them."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest

from vitmae_search.catalog import Catalog
from vitmae_search.records import SearchFilter, VectorAttributes


class Follower:
    """The attributes of a space's vectors, as a vector database keeps them."""

    def __init__(self, catalog, space) -> None:
        self.source = catalog.vector_source(space.space_id)
        self.revision = 0
        self.attributes: dict[int, VectorAttributes] = {}

    def follow(self) -> set[int]:
        """Catch up; return the ids whose attributes were read though their vectors are not new."""
        wanted, changed = self.source.revision(), set()
        for ids, _ in self.source.added_since(self.revision):
            self._read(ids)
        for ids in self.source.attributes_changed_since(self.revision):
            changed |= set(ids.tolist())
            self._read(ids)
        for number in self.source.removed_since(self.revision).tolist():
            self.attributes.pop(number, None)
        self.revision = wanted
        return changed

    def assert_is_current(self) -> None:
        self.follow()
        ids = np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in self.source.added_since(0))])
        truth = dict(zip(ids.tolist(), self.source.attributes(ids), strict=True))
        assert self.attributes == truth

    def _read(self, ids) -> None:
        self.attributes |= dict(zip(ids.tolist(), self.source.attributes(ids), strict=True))


def photo_id(catalog, path: str) -> int:
    return next(photo.photo_id for photo in catalog.photos(missing=None) if photo.path == path)


def test_new_photos_are_no_change_of_attributes(writer, make):
    space = make.space(writer)
    follower = Follower(writer, space)
    writer.record_batch(space.space_id, [make.item(f"/a/{n}.jpg", str(n)) for n in range(5)])
    assert follower.follow() == set()
    revision = follower.source.revision()
    writer.record_batch(space.space_id, [make.item("/a/1.jpg", "1", known=True)])  # read again, as it was
    assert follower.source.revision() == revision
    follower.assert_is_current()


CHANGES = {
    "a copy": lambda w, s, m: w.record_batch(s, [m.item("/b/copy.jpg", "1", known=True)]),
    "a move": lambda w, s, m: w.record_batch(
        s, [m.item("/b/1.jpg", "1", photo_id=photo_id(w, "/a/1.jpg"), known=True)]
    ),
    "a move over another": lambda w, s, m: w.record_batch(
        s, [m.item("/a/2.jpg", "1", photo_id=photo_id(w, "/a/1.jpg"), known=True)]
    ),
    "an edit of a copy": lambda w, s, m: w.record_batch(s, [m.item("/c/0.jpg", "edited")]),
    "an edit into another": lambda w, s, m: w.record_batch(s, [m.item("/c/0.jpg", "1", known=True)]),
    "another time": lambda w, s, m: w.record_batch(s, [m.item("/a/1.jpg", "1", known=True, mtime_ns=10**18)]),
    "a camera that was not read before": lambda w, s, m: w.record_batch(
        s, [m.item("/a/1.jpg", "1", camera="Leica")]
    ),
    "a date that was not read before": lambda w, s, m: w.record_batch(
        s, [m.item("/a/1.jpg", "1", taken_at=datetime(2001, 2, 3))]
    ),
    "a copy that cannot be read any more": lambda w, s, m: w.record_batch(
        s, [], [m.failure("/c/0.jpg", size=9)]
    ),
    "missing": lambda w, s, m: w.mark_missing([photo_id(w, "/a/1.jpg")]),
    "not seen by a walk": lambda w, s, m: w.mark_unseen(list(w.files_at(["/a/1.jpg"], s).values())),
    "found": lambda w, s, m: w.mark_found([photo_id(w, "/a/3.jpg")]),
    "a copy is deleted": lambda w, s, m: w.remove_photos([photo_id(w, "/c/0.jpg")]),
    "a folder is forgotten": lambda w, s, m: w.forget("/c"),
    "a folder is relocated": lambda w, s, m: w.relocate("/a", "/elsewhere"),
    "tags": lambda w, s, m: w.record_tags(
        w.ensure_classifier(fingerprint="f", source="x", model="x"),
        [(w.content_id(m.digest("1")), [("cat", 0.9)]), (w.content_id(m.digest("2")), [])],
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_followed_in_every_space(writer, make, name):
    space, other = make.space(writer), make.space(writer, "other")
    for each in (space, other):
        items = [make.item(f"/a/{n}.jpg", str(n)) for n in range(4)]
        writer.record_batch(each.space_id, [*items, make.item("/c/0.jpg", "0")])
    writer.mark_missing([photo_id(writer, "/a/3.jpg")])
    followers = [Follower(writer, each) for each in (space, other)]
    for follower in followers:
        follower.assert_is_current()
    before = [dict(follower.attributes) for follower in followers]
    CHANGES[name](writer, space.space_id, make)
    for follower, then in zip(followers, before, strict=True):
        follower.assert_is_current()
        assert follower.attributes != then, "the change is one that filters see"


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_cached_until_a_revision_follows_a_change(writer, make, folder, address, name):
    space = make.space(writer).space_id
    items = [make.item(f"/a/{n}.jpg", str(n)) for n in range(4)]
    writer.record_batch(space, [*items, make.item("/c/0.jpg", "0")])
    writer.mark_missing([photo_id(writer, "/a/3.jpg")])

    def read(catalog: Catalog) -> list[object]:
        return [
            (
                point.photo_ids.tolist(),
                point.moments.tolist(),
                point.paths,
                catalog.searchable_ids(space, where).tolist(),
            )
            for where in (SearchFilter(), SearchFilter(under="/a"), SearchFilter(tag="cat"))
            for point in [catalog.points(space, where)]
        ]

    with Catalog.open(folder, address) as reader:
        read(reader)
        CHANGES[name](writer, space, make)
        with Catalog.open(folder, address) as another:
            assert read(reader) == read(another)


def test_a_repair_lets_all_be_read_again(writer, make):
    space = make.space(writer)
    writer.record_batch(space.space_id, [make.item(f"/a/{n}.jpg", str(n)) for n in range(4)])
    follower = Follower(writer, space)
    follower.follow()
    with writer._database.write_transaction() as connection:
        connection.exec_driver_sql("UPDATE photos SET content_id = 1 WHERE photo_id = 2")
    assert writer.repair()
    follower.assert_is_current()


def test_a_change_of_two_writers_is_seen_in_the_order_of_commits(writer, make, address, folder):
    """Who has followed to a revision misses nothing that is committed later."""
    if address is None:
        pytest.skip("a file has one writer")
    space = make.space(writer)
    writer.record_batch(space.space_id, [make.item(f"/a/{n}.jpg", str(n)) for n in range(4)])
    follower = Follower(writer, space)
    follower.follow()
    writer.mark_missing([photo_id(writer, "/a/1.jpg")])
    with type(writer).open_writer(folder, address) as another:
        another.mark_missing([photo_id(writer, "/a/2.jpg")])
        follower.assert_is_current()
        writer.mark_found([photo_id(writer, "/a/1.jpg")])
        follower.assert_is_current()
