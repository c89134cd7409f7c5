"""Embedding spaces come, are used, and go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from vitmae_search.errors import SpaceError


def test_the_first_space_becomes_current_and_stays_it(writer, make):
    first, second = make.space(writer, "first"), make.space(writer, "second")
    assert (first.current, second.current) == (True, False)
    assert writer.current_space() == first
    assert writer.spaces() == [first, second]


def test_a_space_comes_back_as_it_was_made(writer, make):
    space = make.space(writer)
    assert writer.space(space.space_id) == space == writer.space_of(space.fingerprint)
    assert space.options == {"pooling": "cls"}
    assert space.identity == {"weights": "first"}
    assert space.provenance == {"device": "cpu"}
    assert (space.plugin, space.model, space.dimension, space.decode) == ("vitmae", "first", 8, "scaled")
    assert (space.revision, space.vectors) == (0, 0)
    assert abs(datetime.now(UTC) - space.created_at) < timedelta(minutes=5)
    assert writer.space_of("nothing") is None


def test_one_space_per_fingerprint(writer, make):
    first = make.space(writer)
    assert make.space(writer) == first
    with pytest.raises(SpaceError, match=r"dimension 8.*gives 9"):
        make.space(writer, dimension=9)
    assert writer.spaces() == [first]


def test_a_space_keeps_up_with_where_its_model_lies(writer, make):
    first = make.space(writer)
    values = {name: getattr(first, name) for name in ("fingerprint", "plugin", "dimension", "decode")}
    moved = writer.ensure_space(
        **values, model="moved", options={"pooling": "mean"}, identity={"no": 1}, provenance={"no": 1}
    )
    assert (moved.model, moved.options) == ("moved", {"pooling": "mean"})
    assert (moved.identity, moved.provenance) == (first.identity, first.provenance)
    assert writer.spaces() == [moved]


def test_unknown_spaces_are_answered_with_those_there_are(writer, make):
    with pytest.raises(SpaceError, match=r"no space 7\. None has been made yet"):
        writer.space(7)
    make.space(writer, "first"), make.space(writer, "second")
    sentence = r"no space 7\. There are: 1 \(vitmae, first\), 2 \(vitmae, second\)\."
    for ask in (writer.space, writer.use_space, writer.drop_space, writer.vector_source):
        with pytest.raises(SpaceError, match=sentence):
            ask(7)
    with pytest.raises(SpaceError, match=sentence):
        writer.record_batch(7, [make.item("/p/a.jpg", "cat")])
    assert writer.current_space().space_id == 1


def test_using_another_space(writer, make):
    make.space(writer, "first")
    second = make.space(writer, "second")
    writer.use_space(second.space_id)
    assert [space.current for space in writer.spaces()] == [False, True]
    assert writer.current_space().space_id == second.space_id


def test_dropping_takes_vectors_and_failures_and_nothing_else(writer, make):
    first, second = make.space(writer, "first").space_id, make.space(writer, "second").space_id
    for space in (first, second):
        writer.record_batch(space, [make.item("/p/a.jpg", "cat")], [make.failure("/p/b.jpg")])
    writer.drop_space(first)
    assert [space.space_id for space in writer.spaces()] == [second]
    assert writer.failures(first) == []
    assert len(writer.failures(second)) == 1
    assert writer.count_photos() == 1
    content = writer.photos()[0].content_id
    assert writer.vector(first, content) is None
    assert writer.vector(second, content) is not None
    assert writer.space_of(make.digest("first")) is None
    assert writer.check() == []


def test_after_the_current_one_the_newest_of_the_others_is_current(writer, make):
    first, second, third, fourth = (make.space(writer, name).space_id for name in "abcd")
    writer.drop_space(third)
    assert writer.current_space().space_id == first
    writer.drop_space(first)
    assert writer.current_space().space_id == fourth
    make.space(writer, "a")  # it came back, and is the newest now
    writer.drop_space(fourth)
    assert writer.current_space().space_id == first
    writer.drop_space(first)
    assert writer.current_space().space_id == second
    writer.drop_space(second)
    assert writer.current_space() is None
    assert writer.spaces() == []
    assert make.space(writer, "e").current


def test_vectors_of_two_spaces_never_mix(writer, make):
    first, second = make.space(writer, "first").space_id, make.space(writer, "second").space_id
    writer.record_batch(first, [make.item("/p/a.jpg", "cat")])
    writer.record_batch(second, [make.item("/p/b.jpg", "dog")])
    [a], [b] = writer.searchable_ids(first), writer.searchable_ids(second)
    with pytest.raises(SpaceError):
        writer.vectors(first, [b])
    assert [ids.tolist() for ids, _ in writer.vector_source(first).added_since(0)] == [[a]]
    embedded = {known.stamp.path: known.embedded for known in writer.known_files("/p", second)}
    assert embedded == {"/p/a.jpg": False, "/p/b.jpg": True}
    assert not any(known.embedded for known in writer.known_files("/p", None))


def test_status_counts_failures_of_the_current_space(writer, make):
    first, second = make.space(writer, "first").space_id, make.space(writer, "second").space_id
    writer.record_batch(first, [], [make.failure("/p/a.jpg"), make.failure("/p/b.jpg")])
    writer.record_batch(second, [], [make.failure("/p/a.jpg")])
    assert writer.status().failed == 2
    writer.use_space(second)
    assert writer.status().failed == 1


def test_roots(writer, make, folder):
    space = make.space(writer).space_id
    root = writer.add_root("/p/", 7)
    assert (root.path, root.device, root.offline, root.photos) == ("/p", 7, False, 0)
    writer.record_batch(space, [make.item("/p/a.jpg", "cat"), make.item("/pq/b.jpg", "dog")])
    assert writer.add_root("/p", 8) == writer.roots()[0]
    assert (writer.roots()[0].device, writer.roots()[0].photos) == (7, 1)
    writer.set_root(root.root_id, offline=True)
    assert (writer.roots()[0].device, writer.roots()[0].offline) == (7, True)
    writer.set_root(root.root_id, offline=False, device=2**63 + 5)
    assert (writer.roots()[0].device, writer.roots()[0].offline) == (2**63 + 5, False)
    status = writer.status()
    assert status.roots == tuple(writer.roots())
    assert status.library == str(folder)
    with pytest.raises(Exception, match="no root 9"):
        writer.set_root(9, offline=True)
