"""What an index catches up from: exactly the changes after a revision."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vitmae_search.catalog import CatalogWriter, embeddings
from vitmae_search.errors import LibraryDamaged, SpaceError

WORDS = st.sampled_from([f"w{n}" for n in range(6)])
PATHS = st.sampled_from([f"/p/{n}.jpg" for n in range(6)])


class _Follower:
    """A dict that follows one space as a cache does, and remembers what it held at each revision."""

    def __init__(self, source):
        self.source = source
        self.states = {0: {}}

    def note(self):
        """The whole of the space now, by a full read."""
        self.states[self.source.revision()] = self.caught_up({}, 0)

    def caught_up(self, held, revision):
        held = dict(held)
        for number in self.source.removed_since(revision):
            held.pop(int(number), None)
        for ids, vectors in self.source.added_since(revision):
            for number, vector in zip(ids.tolist(), vectors, strict=True):
                assert number not in held, "given twice"
                held[number] = vector.tobytes()
        return held


class CatchingUp(RuleBasedStateMachine):
    """Random adds, changes, moves, removals and drops; a follower from any past revision ends up right."""

    make: object

    @initialize()
    def open(self):
        self.folder = tempfile.TemporaryDirectory()
        self.writer = CatalogWriter.open_writer(Path(self.folder.name))
        self.photos: dict[str, str] = {}
        self.vectors: dict[int, set[str]] = {}
        self.followers = {}
        for name in ("first", "second"):
            number = self.make.space(self.writer, name).space_id
            self.vectors[number] = set()
            self.followers[number] = _Follower(self.writer.vector_source(number))

    def teardown(self):
        self.writer.close()
        self.folder.cleanup()

    def settle(self):
        """The model's rule: a vector lives as long as a photo has its content."""
        for words in self.vectors.values():
            words &= set(self.photos.values())
        for follower in self.followers.values():
            follower.note()

    @rule(space=st.sampled_from([1, 2]), batch=st.dictionaries(PATHS, WORDS, max_size=4))
    def record(self, space, batch):
        items = [self.make.item(path, word, size=ord(word[1])) for path, word in batch.items()]
        assert self.writer.record_batch(space, items) == ()
        self.photos.update(batch)
        self.vectors[space] |= set(batch.values())
        self.settle()

    @precondition(lambda self: self.photos)
    @rule(data=st.data(), to=PATHS)
    def move(self, data, to):
        path = data.draw(st.sampled_from(sorted(self.photos)))
        word = self.photos[path]
        space = next((n for n, words in self.vectors.items() if word in words), None)
        if space is None or path == to:
            return
        row = self.make.photo_at(self.writer, path).photo_id
        assert self.writer.record_batch(space, [self.make.item(to, word, known=True, photo_id=row)]) == ()
        del self.photos[path]
        self.photos[to] = word
        self.settle()

    @rule(paths=st.sets(PATHS, max_size=3))
    def remove(self, paths):
        rows = [self.make.photo_at(self.writer, path) for path in paths]
        self.writer.remove_photos([row.photo_id for row in rows if row is not None])
        for path in paths:
            self.photos.pop(path, None)
        self.settle()

    @rule(paths=st.sets(PATHS, min_size=1, max_size=2))
    def fail(self, paths):
        self.writer.record_batch(1, [], [self.make.failure(path, size=999) for path in paths])
        for path in paths:
            self.photos.pop(path, None)
        self.settle()

    @rule()
    def drop_and_come_back(self):
        self.writer.drop_space(2)
        assert self.make.space(self.writer, "second").space_id == 2
        self.vectors[2].clear()
        self.settle()

    @invariant()
    def the_catalogue_agrees_with_the_model(self):
        if not hasattr(self, "writer"):
            return
        assert {photo.path: photo.digest for photo in self.writer.photos()} == {
            path: self.make.digest(word) for path, word in self.photos.items()
        }
        for number, words in self.vectors.items():
            now = self.followers[number].caught_up({}, 0)
            assert sorted(now.values()) == sorted(self.make.vector(word).tobytes() for word in words)
        assert self.writer.check() == []

    @invariant()
    def whoever_follows_from_any_revision_arrives(self):
        for follower in getattr(self, "followers", {}).values():
            now = follower.caught_up({}, 0)
            for revision, held in follower.states.items():
                assert follower.caught_up(held, revision) == now


@pytest.mark.parametrize("chunk", [1, 4096])
def test_catching_up_from_any_revision(make, monkeypatch, chunk):
    monkeypatch.setattr(embeddings, "CHUNK_VECTORS", chunk)
    CatchingUp.make = make
    CatchingUp.TestCase.settings = settings(
        max_examples=6,
        stateful_step_count=12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    CatchingUp.TestCase("runTest").runTest()


def test_a_space_that_comes_back_goes_on_with_its_revisions(writer, make):
    """Else an index file of its former life could pass for up to date."""
    first = make.space(writer)
    writer.record_batch(first.space_id, [make.item("/p/a.jpg", "cat")])
    [old] = writer.searchable_ids(first.space_id)
    writer.drop_space(first.space_id)
    again = make.space(writer)
    assert again.revision > 1
    source = writer.vector_source(again.space_id)
    assert source.key == first.fingerprint
    assert source.removed_since(1).tolist() == [old]
    writer.record_batch(again.space_id, [make.item("/p/a.jpg", "cat")])
    assert writer.searchable_ids(again.space_id)[0] > old


def test_what_it_gives_fits_an_index(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat")])
    source = writer.vector_source(space)
    [(ids, vectors)] = source.added_since(0)
    assert (ids.dtype, vectors.dtype, vectors.shape) == (np.int64, np.float32, (1, make.dimension))
    assert vectors.flags.c_contiguous
    assert vectors.flags.writeable
    assert source.removed_since(0).dtype == np.int64
    assert list(source.added_since(source.revision())) == []


def test_vectors_are_stored_little_endian(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat")])
    with writer._database.read_transaction() as connection:
        blob = connection.exec_driver_sql("SELECT vector FROM embeddings").scalar_one()
    assert blob == make.vector("cat").astype("<f4").tobytes()


@pytest.mark.sqlite_only("writes with a literal of SQLite")
def test_a_blob_of_another_length_is_damage(writer, space, make):
    writer.record_batch(space, [make.item("/p/a.jpg", "cat")])
    with writer._transaction() as connection:
        connection.exec_driver_sql("UPDATE embeddings SET vector = x'00'")
    with pytest.raises(LibraryDamaged, match="check"):
        list(writer.vector_source(space).added_since(0))


def test_no_source_of_an_unknown_space(writer):
    with pytest.raises(SpaceError, match="no space 3"):
        writer.vector_source(3)
