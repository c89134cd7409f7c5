"""A derived space holds the projection of each of its parent's vectors, and nothing else, at any time."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import event

from vitmae_search.catalog import Catalog, CatalogWriter, Derivation, derived_spaces
from vitmae_search.errors import LibraryDamaged, SpaceError


@dataclass(frozen=True)
class MatrixProjection:
    """A projection: a seeded matrix, then unit length."""

    seed: int
    width: int = 8
    dimension: int = 5

    @property
    def digest(self) -> str:
        return f"digest-{self.seed}"

    def __call__(self, features):
        matrix = np.random.default_rng(self.seed).standard_normal((self.width, self.dimension))
        vectors = features.astype(np.float64) @ matrix
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def derivation(features, projection, *, project=None):
    """The one that `projection` makes of the space of features with this fingerprint."""
    fingerprint = hashlib.sha256(f"{features}{projection.digest}".encode()).hexdigest()
    described = {"identity": {"projection": projection.digest}, "provenance": {"kind": "matrix"}}
    return Derivation(
        fingerprint, projection.digest, project or projection, projection.dimension, **described
    )


def derive(writer, parent, projection, *, project=None, use=False):
    made = derivation(writer.space(parent).fingerprint, projection, project=project)
    return writer.derive_space(parent, made, use=use)


def assert_in_step(catalog, space, projection):
    """Derived vector i is projection(feature i), for the same contents, and the index's view says so too."""
    photos = {photo.content_id for photo in catalog.photos(missing=None)}
    for content in photos:
        feature = catalog.vector(space.parent_id, content)
        vector = catalog.vector(space.space_id, content)
        assert (feature is None) == (vector is None)
        if feature is not None:
            np.testing.assert_allclose(vector, projection(feature[None])[0], atol=1e-6)
    given = {}
    for ids, vectors in catalog.vector_source(space.space_id).added_since(0):
        given |= dict(zip(ids.tolist(), vectors, strict=True))
    parent = catalog.space(space.parent_id)
    assert len(given) == parent.vectors == catalog.space(space.space_id).vectors
    assert catalog.check({projection.digest: projection}) == []


@pytest.fixture
def filled(writer, make, space) -> int:
    writer.record_batch(space, [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(30)])
    return space


def test_a_space_is_derived_from_what_is_stored(writer, make, filled):
    projection = MatrixProjection(1)
    made = derive(writer, filled, projection)
    parent = writer.space(filled)
    assert (made.parent_id, made.features_id, made.projection) == (filled, filled, projection.digest)
    assert (made.vectors, made.dimension, made.current) == (30, 5, False)
    assert (made.plugin, made.model, made.decode) == (parent.plugin, parent.model, parent.decode)
    assert made.options == parent.options
    assert (made.identity, made.provenance) == ({"projection": projection.digest}, {"kind": "matrix"})
    assert (parent.parent_id, parent.projection, parent.features_id) == (None, None, filled)
    assert writer.derived_spaces(filled) == [made]
    assert writer.derived_spaces(made.space_id) == []
    assert_in_step(writer, made, projection)


def test_chunks_are_one_transaction(writer, make, space, monkeypatch):
    monkeypatch.setattr(derived_spaces, "chunks", lambda ids: (ids[i : i + 7] for i in range(0, len(ids), 7)))
    writer.record_batch(space, [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(30)])
    projection, seen = MatrixProjection(1), []

    def failing(features):
        seen.append(len(features))
        if len(seen) == 4:
            raise ValueError("no")
        return projection(features)

    with pytest.raises(ValueError, match="no"):
        derive(writer, space, projection, project=failing)
    assert seen == [7, 7, 7, 7]
    assert [one.space_id for one in writer.spaces()] == [space]
    assert_in_step(writer, derive(writer, space, projection), projection)
    assert writer.space_of("nothing") is None


def test_every_batch_brings_the_children_along(writer, make, filled):
    projections = [MatrixProjection(1), MatrixProjection(2, dimension=9)]
    made = [derive(writer, filled, projection) for projection in projections]
    projects = {projection.digest: projection for projection in projections}
    items = [make.item(f"/q/{n}.jpg", f"v{n}") for n in range(5)]
    before = [space.revision for space in made]
    # copies, a file that changed, and a failure: what else happens in the batch does not matter
    items += [make.item("/q/copy.jpg", "w3"), make.item("/p/7.jpg", "changed")]
    writer.record_batch(filled, items, [make.failure("/p/9.jpg", size=2)], projects)
    for space, projection, revision in zip(made, projections, before, strict=True):
        assert_in_step(writer, space, projection)
        assert writer.space(space.space_id).revision == revision + 1
        assert writer.space(space.space_id).vectors == 30 + 6 - 2


def test_a_batch_without_the_projection_is_refused_whole(writer, make, filled):
    made = derive(writer, filled, MatrixProjection(1))
    with pytest.raises(SpaceError, match=f"Space {made.space_id} would fall behind"):
        writer.record_batch(filled, [make.item("/q/new.jpg", "new")])
    assert make.photo_at(writer, "/q/new.jpg") is None
    assert_in_step(writer, made, MatrixProjection(1))
    # where no vector comes, none is needed
    writer.record_batch(filled, [make.item("/q/copy.jpg", "w3", known=True)], [make.failure("/q/bad.jpg")])
    assert_in_step(writer, made, MatrixProjection(1))


@pytest.mark.parametrize(
    "project",
    [
        lambda features: features[:, :4],
        lambda features: MatrixProjection(1)(features)[1:],
        lambda features: MatrixProjection(1)(features) * 2,
        lambda features: MatrixProjection(1)(features) * np.float32("nan"),
    ],
)
def test_what_is_no_vector_is_refused_whole(writer, make, filled, project):
    with pytest.raises(SpaceError, match="The projection of space"):
        derive(writer, filled, MatrixProjection(1), project=project)
    assert len(writer.spaces()) == 1
    made = derive(writer, filled, MatrixProjection(1))
    with pytest.raises(SpaceError, match="The projection of space"):
        writer.record_batch(filled, [make.item("/q/new.jpg", "new")], (), {"digest-1": project})
    assert make.photo_at(writer, "/q/new.jpg") is None
    assert_in_step(writer, made, MatrixProjection(1))


def test_deriving_again_is_the_same_space(writer, filled):
    made = derive(writer, filled, MatrixProjection(1))
    assert derive(writer, filled, MatrixProjection(1)) == made
    writer.drop_space(made.space_id)
    assert writer.spaces() == [writer.space(filled)]
    again = derive(writer, filled, MatrixProjection(1))
    assert (again.space_id, again.vectors) == (made.space_id, 30)
    assert again.revision > made.revision, "an old index file must not be taken for a new one"
    removed = set(writer.vector_source(made.space_id).removed_since(0).tolist())
    assert len(removed) == 30
    assert_in_step(writer, again, MatrixProjection(1))


def test_spaces_of_features_alone_are_parents_and_are_recorded_in(writer, make, filled):
    made = derive(writer, filled, MatrixProjection(1))
    with pytest.raises(SpaceError, match=rf"Space {made.space_id} is derived itself.* in space {filled}"):
        derive(writer, made.space_id, MatrixProjection(2, width=5))
    with pytest.raises(SpaceError, match=rf"features are in space {filled}"):
        writer.record_batch(made.space_id, [make.item("/q/new.jpg", "new")])
    with pytest.raises(SpaceError, match="no space 9"):
        writer.derive_space(9, derivation("f", MatrixProjection(1)))


def test_features_stay_while_a_space_is_derived_from_them(writer, filled):
    first, second = derive(writer, filled, MatrixProjection(1)), derive(writer, filled, MatrixProjection(2))
    with pytest.raises(SpaceError, match=r"holds the features of spaces 2, 3; drop spaces 2, 3 first"):
        writer.drop_space(filled)
    writer.drop_space(first.space_id)
    with pytest.raises(SpaceError, match=r"holds the features of space 3; drop space 3 first"):
        writer.drop_space(filled)
    writer.drop_space(second.space_id)
    writer.drop_space(filled)
    assert writer.spaces() == []
    assert writer.check() == []


def test_which_space_is_current(writer, make):
    first = make.space(writer, derivation=derivation(make.digest("first"), MatrixProjection(1)))
    assert first.current, "the first to be searched in"
    features = writer.space(first.features_id)
    assert (features.fingerprint, features.current) == (make.digest("first"), False)
    assert make.space(writer) == features
    assert make.space(writer, derivation=derivation(make.digest("first"), MatrixProjection(1))) == first
    assert not derive(writer, features.space_id, MatrixProjection(2)).current
    assert derive(writer, features.space_id, MatrixProjection(3), use=True).current
    assert derive(writer, features.space_id, MatrixProjection(1), use=True).current
    other = make.space(writer, "other", derivation=derivation(make.digest("other"), MatrixProjection(1)))
    assert [space.current for space in writer.spaces()] == [False, True, False, False, False, False]
    assert other.features_id == 5


def test_features_and_what_is_derived_from_them_are_made_together_or_not_at_all(writer, make):
    wrong = derivation(make.digest("second"), MatrixProjection(1))
    make.space(writer, derivation=replace(wrong, dimension=9))
    with pytest.raises(SpaceError, match="has vectors of dimension 9"):
        make.space(writer, "second", derivation=wrong)
    assert [space.parent_id for space in writer.spaces()] == [None, 1], "no features without it"


def test_the_next_one_of_the_same_features_is_current_where_one_is_dropped(writer, make, filled):
    first, second = (
        derive(writer, filled, MatrixProjection(1)),
        derive(writer, filled, MatrixProjection(2), use=True),
    )
    newest = make.space(writer, "of a few photos").space_id
    for gone, left in ((second.space_id, first.space_id), (first.space_id, filled), (filled, newest)):
        writer.drop_space(gone)
        assert writer.current_space().space_id == left


def test_a_model_that_moved_takes_its_derived_spaces_along(writer, make, filled):
    made, first = derive(writer, filled, MatrixProjection(1)), writer.space(filled)
    values = {name: getattr(first, name) for name in ("fingerprint", "plugin", "dimension", "decode")}
    writer.ensure_space(**values, model="moved", options={"model": "/new"}, identity={}, provenance={})
    assert (writer.space(made.space_id).model, writer.space(made.space_id).options) == (
        "moved",
        {"model": "/new"},
    )


def test_failures_are_those_of_the_features(writer, make, filled):
    made = derive(writer, filled, MatrixProjection(1), use=True)
    writer.record_batch(filled, [], [make.failure("/p/bad.jpg")], {"digest-1": MatrixProjection(1)})
    assert writer.failures(made.space_id) == writer.failures(filled) != []
    assert writer.status().failed == 1
    writer.drop_space(made.space_id)
    assert len(writer.failures(filled)) == 1


def test_a_failed_file_whose_content_another_model_embedded_stays(writer, make, filled):
    """The children of the space where it failed do not count as another model."""
    projection = MatrixProjection(1)
    derive(writer, filled, projection)
    writer.record_batch(filled, [], [make.failure("/p/3.jpg")], {projection.digest: projection})
    assert make.photo_at(writer, "/p/3.jpg") is None
    other = make.space(writer, "other").space_id
    writer.record_batch(other, [make.item("/p/4.jpg", "w4")])
    writer.record_batch(filled, [], [make.failure("/p/4.jpg")], {projection.digest: projection})
    assert make.photo_at(writer, "/p/4.jpg") is not None


class Histories(RuleBasedStateMachine):
    """Batches, removals, copies and new spaces in any order."""

    def __init__(self, folder, make) -> None:
        super().__init__()
        self.make = make
        self.writer = CatalogWriter.open_writer(folder)
        self.parent = make.space(self.writer).space_id
        self.projections = {}

    @rule(seed=st.integers(1, 3))
    def derive(self, seed):
        self.projections[derive(self.writer, self.parent, MatrixProjection(seed)).space_id] = (
            MatrixProjection(seed)
        )

    @rule(which=st.integers(0, 3))
    def drop(self, which):
        if which < len(self.projections):
            space_id = list(self.projections)[which]
            self.writer.drop_space(space_id)
            del self.projections[space_id]

    @rule(
        files=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=6),
        failed=st.lists(st.integers(0, 9), max_size=2),
    )
    def record(self, files, failed):
        items = [self.make.item(f"/p/{name}.jpg", f"w{word}") for name, word in files]
        failures = [self.make.failure(f"/p/{name}.jpg", size=3) for name in failed]
        projects = {projection.digest: projection for projection in self.projections.values()}
        self.writer.record_batch(self.parent, items, failures, projects)

    @rule(which=st.integers(0, 9))
    def remove(self, which):
        photo = self.make.photo_at(self.writer, f"/p/{which}.jpg")
        if photo is not None:
            self.writer.remove_photos([photo.photo_id])

    @invariant()
    def in_step(self):
        for space_id, projection in self.projections.items():
            assert_in_step(self.writer, self.writer.space(space_id), projection)

    def teardown(self):
        self.writer.close()


def test_any_history_keeps_parent_and_children_in_step(tmp_path_factory, make):
    run_state_machine_as_test(
        lambda: Histories(tmp_path_factory.mktemp("histories") / "library", make),
        settings=settings(max_examples=12, stateful_step_count=8, deadline=None),
    )


# Kills ---------------------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[4])
from conftest import Make
from test_derived_spaces import MatrixProjection, derive
from vitmae_search.catalog import CatalogWriter, derived_spaces

folder, mode, make, projection = Path(sys.argv[1]), sys.argv[2], Make(), MatrixProjection(1)
inside = mode.endswith("inside")
writer = CatalogWriter.open_writer(folder, wait=10)
parent = make.space(writer).space_id
first = int(sys.argv[3])
calls = 0

def project(features):
    global calls
    calls += 1
    if inside and calls == (1 if mode.startswith("batch") else 2):
        print("inside", flush=True)
        sys.stdin.read()
    return projection(features)

if mode.startswith("derive"):
    print("begin", flush=True)
    derive(writer, parent, projection, project=project)
for start in range(first, first + 5000, 5):
    items = [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(start, start + 5)]
    print("begin", flush=True)
    writer.record_batch(parent, items, (), {projection.digest: project})
"""


@pytest.fixture
def start_child(folder):
    started = []

    def begin(mode: str, first: int) -> subprocess.Popen[bytes]:
        here = os.fspath(Path(__file__).parent)
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, os.fspath(folder), mode, str(first), here],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        started.append(child)
        return child

    yield begin
    for child in started:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def read_until(child, word: bytes, times: int = 1) -> None:
    while times:
        line = child.stdout.readline()
        assert line, f"the child ended: {child.wait()}"
        times -= line.strip() == word


def kill(child) -> None:
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def test_a_kill_inside_derive_leaves_no_derived_space(folder, make, start_child):
    with CatalogWriter.open_writer(folder) as writer:
        parent = make.space(writer).space_id
        writer.record_batch(parent, [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(1500)])
    child = start_child("derive inside", 0)
    read_until(child, b"inside")  # the first thousand are written
    with Catalog.open(folder) as reader:
        assert len(reader.spaces()) == 1, "a reader beside it sees nothing of it"
        kill(child)
        assert len(reader.spaces()) == 1
        assert reader.check() == []
    with CatalogWriter.open_writer(folder, wait=0) as writer:
        assert_in_step(writer, derive(writer, parent, MatrixProjection(1)), MatrixProjection(1))


def test_a_kill_inside_a_batch_leaves_parent_and_child_without_it(folder, make, start_child):
    with CatalogWriter.open_writer(folder) as writer:
        parent = make.space(writer).space_id
        writer.record_batch(parent, [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(20)])
        made = derive(writer, parent, MatrixProjection(1))
    child = start_child("batch inside", 20)
    read_until(child, b"inside")  # the features are written, the derived vectors are not
    kill(child)
    with Catalog.open(folder) as reader:
        assert reader.count_photos() == 20
        assert_in_step(reader, made, MatrixProjection(1))


def test_kills_at_any_moment_leave_both_in_step(folder, make, start_child):
    done = 0
    for delay in (0.0, 0.004, 0.013):
        child = start_child("derive", done)
        read_until(child, b"begin", times=4)
        time.sleep(delay)
        kill(child)
        with Catalog.open(folder) as reader:
            [parent, made] = reader.spaces()
            assert parent.vectors == made.vectors == reader.count_photos()
            assert parent.vectors % 5 == 0
            assert parent.vectors > done
            done = parent.vectors
            assert_in_step(reader, made, MatrixProjection(1))


# Damage --------------------------------------------------------------------------------------------------


def spoil(folder: Path, statement: str, *values: object) -> None:
    raw = sqlite3.connect(folder / "catalogue.sqlite3")
    changed = raw.execute(statement, values).rowcount
    raw.commit()
    raw.close()
    assert changed > 0


UNIT = np.eye(5, dtype="<f4")[0].tobytes()

OTHER = "SELECT vector FROM embeddings WHERE content_id = 5 AND space_id"

SPOILED = {
    "lost": ("DELETE FROM embeddings WHERE space_id = 2 AND content_id IN (3, 4)", "without a vector"),
    "another's": (
        f"UPDATE embeddings SET vector = ({OTHER} = 2) WHERE space_id = 2 AND content_id = 6",
        r"1 vector \(ids \d+\) that its projection does not give",
    ),
    "without features": (
        "DELETE FROM embeddings WHERE space_id = 1 AND content_id IN (7, 8)",
        r"2 vectors \(ids \d+, \d+\) without features",
    ),
    "short": (
        "UPDATE embeddings SET vector = x'00000000' WHERE space_id = 2 AND content_id = 9",
        "dimension is not 5",
    ),
    "features that changed": (
        f"UPDATE embeddings SET vector = ({OTHER} = 1) WHERE space_id = 1 AND content_id = 6",
        "that its projection does not give",
    ),
    "no features": ("UPDATE spaces SET dropped = 1, current = 0 WHERE space_id = 1", "which is not there"),
}


@pytest.mark.parametrize(("statement", "sentence"), SPOILED.values(), ids=SPOILED)
def test_damage_is_said_and_mended(folder, make, statement, sentence):
    projection = MatrixProjection(1)
    projects = {projection.digest: projection}
    with CatalogWriter.open_writer(folder) as writer:
        parent = make.space(writer).space_id
        writer.record_batch(parent, [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(30)])
        derive(writer, parent, projection)
    spoil(folder, statement)
    with CatalogWriter.open_writer(folder) as writer:
        problems = writer.check(projects)
        assert any(re.search(sentence, problem) for problem in problems), problems
        repaired = writer.repair(projects)
        assert repaired == [f"Mended: {problem}" for problem in problems]
        assert writer.check(projects) == []
        items = [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(30)]
        parent = make.space(writer).space_id
        writer.record_batch(parent, items, (), projects)
        assert_in_step(writer, derive(writer, parent, projection), projection)
        assert writer.space(parent).vectors == 30


def test_without_the_projection_only_what_needs_it_is_left(folder, make):
    projection = MatrixProjection(1)
    with CatalogWriter.open_writer(folder) as writer:
        parent = make.space(writer).space_id
        writer.record_batch(parent, [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(30)])
        made = derive(writer, parent, projection)
    spoil(folder, SPOILED["lost"][0])
    spoil(folder, SPOILED["another's"][0])
    spoil(folder, "UPDATE spaces SET vectors = 28 WHERE space_id = 2")
    with CatalogWriter.open_writer(folder) as writer:
        [problem] = writer.check()
        assert "2 contents" in problem
        assert writer.repair() == []
        writer.repair({projection.digest: projection})
        assert_in_step(writer, made, projection)


def test_a_batch_puts_a_derived_vector_that_outlived_its_features_right(folder, make):
    projection = MatrixProjection(1)
    with CatalogWriter.open_writer(folder) as writer:
        parent = make.space(writer).space_id
        writer.record_batch(parent, [make.item("/p/a.jpg", "a")])
        made = derive(writer, parent, projection)
    spoil(folder, "DELETE FROM embeddings WHERE space_id = 1")
    spoil(folder, "UPDATE spaces SET vectors = 0 WHERE space_id = 1")
    spoil(folder, "UPDATE embeddings SET vector = ? WHERE space_id = 2", UNIT)
    with CatalogWriter.open_writer(folder) as writer:
        writer.record_batch(parent, [make.item("/p/a.jpg", "a")], (), {projection.digest: projection})
        assert_in_step(writer, made, projection)


def test_damaged_features_are_not_derived_from(folder, make):
    with CatalogWriter.open_writer(folder) as writer:
        parent = make.space(writer).space_id
        writer.record_batch(parent, [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(3)])
    spoil(folder, "UPDATE embeddings SET vector = x'00' WHERE content_id = 2")
    with CatalogWriter.open_writer(folder) as writer:
        with pytest.raises(LibraryDamaged, match="wrong dimension"):
            derive(writer, parent, MatrixProjection(1))
        assert len(writer.spaces()) == 1


def test_recording_a_batch_counts_no_vectors(writer, make, filled):
    """It would walk over all of them, batch by batch."""
    projection = MatrixProjection(1)
    derive(writer, filled, projection)
    said = []
    with writer._transaction() as connection:
        event.listen(
            connection.engine, "before_cursor_execute", lambda *described: said.append(described[2].lower())
        )
    batch = [make.item("/p/new.jpg", "new"), make.item("/p/0.jpg", "other")]
    writer.record_batch(filled, batch, [make.failure("/p/3.jpg")], {projection.digest: projection})
    assert any("insert into embeddings" in statement for statement in said)
    assert [statement for statement in said if "count(" in statement] == []
