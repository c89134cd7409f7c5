"""The cache always gives what its source holds, whatever happened to its file."""

import copy
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from vitmae_search.atomic import lock
from vitmae_search.errors import VectorCacheDamaged, VectorIndexError
from vitmae_search.vectors import ExactIndex, VectorCache, stored_rows
from vitmae_search.vectors.file import Origin, VectorsFile, write_payload_file, write_vectors_file
from vitmae_search.vectors.stored_rows import BLOCK_ROWS, BlockLayout

LAYOUT = BlockLayout(8192, 4)
"""Where the rows of a vectors file of dimension 4 are."""


def assert_holds(found, source) -> None:
    index = found.exact
    assert index.ids.tolist() == sorted(source.rows)
    ids = np.array(sorted(source.rows), np.int64)
    expected = np.array([source.rows[i][1] for i in ids.tolist()], np.float32).reshape(-1, source.dimension)
    assert np.array_equal(index.vectors(ids), expected)


def saved(tmp_path, source):
    assert VectorCache(tmp_path).save(source)
    return tmp_path / f"{source.key}.vectors"


def test_a_new_process_reads_only_what_came_later(tmp_path, source, unit):
    saved(tmp_path, source)
    source.add(unit(5, 4, seed=9))
    source.remove([3])
    source.reads.clear()
    assert_holds(VectorCache(tmp_path).open(source), source)
    assert source.reads == [4]


def test_nothing_is_read_or_written_when_nothing_changed(tmp_path, source):
    path = saved(tmp_path, source)
    before = path.stat()
    cache = VectorCache(tmp_path)
    first = cache.open(source)
    source.reads.clear()
    assert cache.open(source).exact is first.exact
    assert cache.save(source)
    assert source.reads == []
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_deleted_file_is_written_again(tmp_path, source):
    cache = VectorCache(tmp_path)
    cache.save(source)
    path = cache.path(source.key)
    path.unlink()
    assert cache.save(source)
    assert cache.verify(source)


class CacheModel(RuleBasedStateMachine):
    """Any order of changes, saves, backups, new processes and damage."""

    def __init__(self, folder, source) -> None:
        super().__init__()
        self.folder, self.source = folder, source
        self.cache = VectorCache(folder)
        self.random = np.random.default_rng(0)
        self.backup = copy.deepcopy(source)

    @rule(count=st.integers(1, 12))
    def add(self, count):
        rows = self.random.standard_normal((count, 4))
        self.source.add((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))

    @precondition(lambda self: self.source.rows)
    @rule(data=st.data())
    def remove(self, data):
        held = sorted(self.source.rows)
        self.source.remove(data.draw(st.lists(st.sampled_from(held), unique=True, min_size=1)))

    @rule()
    def save(self):
        assert self.cache.save(self.source)

    @rule()
    def back_up(self):
        self.backup = copy.deepcopy(self.source)

    @rule()
    def restore(self):
        self.source.restore(self.backup)

    @rule()
    def another_process(self):
        self.cache = VectorCache(self.folder)

    @rule(place=st.floats(0, 1), bit=st.integers(0, 7))
    def damage(self, place, bit):
        path = self.cache.path(self.source.key)
        if path.is_file():
            data = bytearray(path.read_bytes())
            data[int(place * (len(data) - 1))] ^= 1 << bit
            path.write_bytes(data)
            self.cache = VectorCache(self.folder)
            self.cache.maintain(self.source)

    @invariant()
    def holds_what_the_source_holds(self):
        assert_holds(self.cache.open(self.source), self.source)


@pytest.mark.parametrize("block_rows", [4096, 8])
def test_any_history_ends_with_what_the_source_holds(tmp_path_factory, new_source, block_rows, monkeypatch):
    monkeypatch.setattr(stored_rows, "BLOCK_ROWS", block_rows)
    run_state_machine_as_test(
        lambda: CacheModel(tmp_path_factory.mktemp("vectors"), new_source()),
        settings=settings(max_examples=25, stateful_step_count=15, deadline=None),
    )


def test_each_flipped_bit_is_seen(tmp_path, new_source, unit):
    """That of a vector when there is time to read them all, any other one at once."""
    source = new_source()
    source.add(unit(3, 4))
    path = saved(tmp_path, source)
    seen_later = 0
    header, ids, vectors = [*range(600), *range(600, 4096, 97)], LAYOUT.id_place(0), LAYOUT.vector_place(0)
    for place in [*header, *range(ids, ids + 3 * 8), *range(vectors, path.stat().st_size)]:
        with flipped(path, place), suppress(VectorCacheDamaged):
            assert not VectorsFile(path, source).verify_checksum()
            seen_later += 1
    assert seen_later == 3 * 4 * 4
    assert VectorsFile(path, source).verify_checksum()


@contextmanager
def flipped(path, place):
    """A bit of the byte at `place`, flipped and put back: in place, for to write all anew takes its time."""
    with open(path, "r+b", buffering=0) as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << place % 8]))
        yield
        file.seek(place)
        file.write(bytes([byte]))


def test_each_truncation_is_seen_and_what_lies_behind_the_rows_does_not_count(tmp_path, source):
    path = saved(tmp_path, source)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(VectorCacheDamaged):
            VectorsFile(path, source)
    path.write_bytes(whole + b"rows of which nobody knows")
    assert VectorsFile(path, source).ids.tolist() == sorted(source.rows)
    assert_holds(VectorCache(tmp_path).open(source), source)


def test_scores_and_order_are_the_sources_whatever_bit_of_a_vector_is_flipped(tmp_path, new_source, unit):
    source = new_source()
    source.add(unit(6, 4))
    path = saved(tmp_path, source)
    query = unit(1, 4, seed=8)
    expected = VectorCache(tmp_path).open(source).search(query, 6)[0]
    for place in range(LAYOUT.vector_place(0), path.stat().st_size):
        with flipped(path, place):
            found = VectorCache(tmp_path).open(source).search(query, 6)[0]
        truth = dict(zip(expected.ids.tolist(), expected.scores.tolist(), strict=True))
        assert found.scores.tolist() == [truth[i] for i in found.ids.tolist()]
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_a_file_of_the_other_kind_is_not_used(tmp_path, source):
    """As after somebody swapped the two: each is whole, and of this space and revision."""
    path = saved(tmp_path, source)
    other = path.with_suffix(".approximate")
    path.rename(other)
    write_payload_file(path, Origin.at(source, source.revision()), b"an index", {})
    with pytest.raises(VectorCacheDamaged, match="another kind"):
        VectorCache(tmp_path).verify(source)
    cache = VectorCache(tmp_path)
    assert not cache.is_current(source)
    assert_holds(cache.open(source), source)
    assert cache.save(source)
    with pytest.raises(VectorCacheDamaged, match="another kind"):
        cache.verify(source)
    other.unlink()
    assert VectorCache(tmp_path).verify(source)


@pytest.mark.parametrize("change", ["key", "dimension"])
def test_a_file_of_another_space_is_not_used(tmp_path, source, new_source, unit, change):
    path = saved(tmp_path, source)
    other = new_source(6 if change == "dimension" else 4, "other" if change == "key" else "space")
    for _ in range(3):
        other.add(unit(10, other.dimension, seed=20))
    path.rename(tmp_path / f"{other.key}.vectors")
    assert_holds(VectorCache(tmp_path).open(other), other)


def test_a_file_that_outlived_its_catalogue_is_not_used(tmp_path, source, new_source, unit):
    """Same key and ids, a revision that looks plausible: only its identity tells."""
    saved(tmp_path, source)
    other = new_source()
    for seed in range(5):
        other.add(unit(10, 4, seed=100 + seed))
    assert_holds(VectorCache(tmp_path).open(other), other)


def test_what_is_in_memory_of_another_history_is_not_used(tmp_path, source, new_source, unit):
    """The catalogue was made anew while this process was running, and is at the same revision again."""
    cache = VectorCache(tmp_path)
    cache.save(source)
    other = new_source()
    while other.last < source.last:
        other.add(unit(10, 4, seed=100 + other.last))
    assert_holds(cache.open(other), other)
    cache.save(other)
    assert_holds(VectorCache(tmp_path).open(other), other)
    other.reads.clear()
    VectorCache(tmp_path).open(other)
    assert 0 not in other.reads, "the file was written for the new history"


def test_a_backup_that_went_another_way_is_not_mixed_with_the_file(tmp_path, source, unit):
    before = copy.deepcopy(source)
    source.add(unit(4, 4, seed=50))
    saved(tmp_path, source)
    source.restore(before)
    source.add(unit(3, 4, seed=51))
    source.add(unit(3, 4, seed=52))
    assert_holds(VectorCache(tmp_path).open(source), source)


def test_a_backup_that_reached_the_same_revision_by_another_way_is_not_mixed(tmp_path, source, unit):
    """Only what came between the backup and the last change differs."""
    before = copy.deepcopy(source)
    source.add(unit(3, 4, seed=50))
    source.add(unit(3, 4, seed=52))
    cache = VectorCache(tmp_path)
    cache.save(source)
    source.restore(before)
    source.add(unit(3, 4, seed=51))
    source.add(unit(3, 4, seed=52))
    assert not cache.is_current(source)
    with pytest.raises(VectorCacheDamaged, match="another past"):
        cache.verify(source)
    assert_holds(cache.open(source), source)
    assert_holds(VectorCache(tmp_path).open(source), source)


def test_a_source_that_went_back_is_read_anew(tmp_path, source, unit):
    cache = VectorCache(tmp_path)
    before = copy.deepcopy(source)
    source.add(unit(4, 4, seed=50))
    cache.save(source)
    source.restore(before)
    assert_holds(cache.open(source), source)


def test_what_is_given_twice_beside_a_writer_is_taken_once(tmp_path, source, unit):
    """The writer commits between the reading of the revision and that of the rows."""
    cache = VectorCache(tmp_path)
    cache.open(source)
    answer = source.revision
    stale = source.last
    source.add(unit(2, 4, seed=60))
    gone = source.add(unit(2, 4, seed=61))
    source.revision = lambda: stale + 1
    cache.open(source)
    source.remove(gone)
    source.revision = answer
    assert_holds(cache.open(source), source)


def test_a_source_with_a_bad_vector_is_an_error_that_is_said(tmp_path, source):
    source.add(np.full((1, 4), np.nan, np.float32))
    with pytest.raises(VectorIndexError, match="NaN"):
        VectorCache(tmp_path).open(source)


def test_without_a_folder_it_works_from_memory(tmp_path, source):
    (tmp_path / "file").write_bytes(b"")
    cache = VectorCache(tmp_path / "file" / "vectors")
    assert_holds(cache.open(source), source)
    assert not cache.save(source)
    assert not os.path.exists(cache.path(source.key))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_read_and_left(tmp_path, source, unit):
    saved(tmp_path, source)
    source.add(unit(2, 4, seed=5))
    tmp_path.chmod(0o500)
    try:
        cache = VectorCache(tmp_path)
        assert_holds(cache.open(source), source)
        assert not cache.save(source)
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_leaves_the_old_file(tmp_path, source, unit, monkeypatch):
    path = saved(tmp_path, source)
    before = path.read_bytes()
    source.add(unit(2, 4, seed=5))
    source.remove(sorted(source.rows)[:10])  # so many that the file is written anew

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    cache = VectorCache(tmp_path)
    assert not cache.save(source)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]
    assert_holds(cache.open(source), source)


class FullDisk:
    """`os.pwrite` and `os.fsync` until the disk is full, which may be in the middle of a write."""

    def __init__(self, monkeypatch, calls: int) -> None:
        self.left, self.pwrite, self.fsync = calls, os.pwrite, os.fsync
        monkeypatch.setattr(os, "pwrite", self.write)
        monkeypatch.setattr(os, "fsync", self.sync)

    def write(self, handle, data, place):
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")
        return self.pwrite(handle, memoryview(data)[: max(1, len(data) // 2)], place)

    def sync(self, handle):
        self.write(handle, b"", 0)
        self.fsync(handle)


def test_a_disk_that_is_full_at_any_point_of_an_addition(tmp_path, source, unit, monkeypatch):
    """The old rows are kept, and the addition is saved once there is room."""
    monkeypatch.setattr(stored_rows, "BLOCK_ROWS", 16)
    path = saved(tmp_path, source)
    old, inode = len(source.rows), path.stat().st_ino
    source.add(unit(16, 4, seed=5))  # fills a block and begins another
    for calls in range(1000):
        cache = VectorCache(tmp_path)
        with monkeypatch.context() as patched:
            FullDisk(patched, calls)
            done = cache.save(source)
        file = VectorsFile(path, source)
        assert file.verify_checksum()
        assert len(file.ids) == len(source.rows) if done else len(file.ids) in (old, len(source.rows))
        assert_holds(VectorCache(tmp_path).open(source), source)
        if len(file.ids) > old:
            break
    assert calls > 20
    assert VectorCache(tmp_path).save(source)
    assert VectorCache(tmp_path).verify(source)
    assert path.stat().st_ino == inode, "it was not written anew"


def test_an_addition_is_appended(tmp_path, source, unit):
    source.add(unit(BLOCK_ROWS - 40, 4, seed=3))
    cache = VectorCache(tmp_path)
    cache.save(source)
    path = cache.path(source.key)
    before, inode, reader = path.read_bytes(), path.stat().st_ino, VectorCache(tmp_path)
    held = reader.open(source)
    for seed in range(4):
        source.add(unit(30, 4, seed=10 + seed))  # the second fills a block
        assert cache.save(source)
        assert VectorCache(tmp_path).is_current(source)
        assert_holds(VectorCache(tmp_path).open(source), source)
        assert_holds(reader.open(source), source)
    after = path.read_bytes()
    assert path.stat().st_ino == inode
    rows = slice(LAYOUT.vector_place(0), len(before))
    assert after[rows] == before[rows]
    assert len(held.search(unit(1, 4), 10_000)[0]) == BLOCK_ROWS - 40 + 28
    assert VectorCache(tmp_path).verify(source)


def test_removed_vectors_stay_in_the_file_until_they_are_many(tmp_path, source, unit):
    source.add(unit(1000, 4, seed=3))
    path = saved(tmp_path, source)
    inode = path.stat().st_ino
    source.remove(sorted(source.rows)[:60])
    source.add(unit(20, 4, seed=4))
    assert VectorCache(tmp_path).save(source)
    source.remove(sorted(source.rows)[-5:])
    assert VectorCache(tmp_path).save(source)
    assert path.stat().st_ino == inode
    assert_holds(VectorCache(tmp_path).open(source), source)
    assert VectorCache(tmp_path).describe(source).vectors == len(source.rows)
    assert VectorCache(tmp_path).verify(source)
    source.remove(sorted(source.rows)[:100])
    assert VectorCache(tmp_path).save(source)
    assert path.stat().st_ino != inode
    assert len(VectorsFile(path, source).ids) == len(source.rows)


def test_a_header_that_was_half_written_leaves_the_state_before(tmp_path, source, unit):
    path = saved(tmp_path, source)
    old = sorted(source.rows)
    source.add(unit(5, 4, seed=5))
    VectorCache(tmp_path).save(source)
    with open(path, "r+b") as file:
        file.seek(4096 + 200)
        file.write(bytes(100))
    assert VectorsFile(path, source).ids.tolist() == old
    source.reads.clear()
    assert_holds(VectorCache(tmp_path).open(source), source)
    assert 0 not in source.reads
    assert VectorCache(tmp_path).save(source)
    assert VectorCache(tmp_path).verify(source)


def test_rows_that_were_damaged_are_not_given_a_new_checksum(tmp_path, source, unit):
    path = saved(tmp_path, source)
    source.add(unit(5, 4, seed=5))
    with open(path, "r+b") as file:
        file.seek(LAYOUT.vector_place(3))
        file.write(b"?")
    assert VectorCache(tmp_path).save(source)
    assert VectorCache(tmp_path).verify(source)


def test_two_processes_that_append_at_once(tmp_path, source, unit):
    path = saved(tmp_path, source)
    one, other = VectorCache(tmp_path), VectorCache(tmp_path)
    one.open(source)
    other.open(source)
    source.add(unit(5, 4, seed=5))
    with open(path, "rb") as busy:  # as another process does while it appends
        assert lock(busy)
        assert one.save(source)
    assert_holds(VectorCache(tmp_path).open(source), source)
    source.add(unit(5, 4, seed=6))
    assert other.save(source)
    assert one.save(source)
    assert VectorCache(tmp_path).verify(source)


def test_a_file_of_an_earlier_version_is_made_anew_with_one_sentence(tmp_path, source, caplog):
    path = saved(tmp_path, source)
    write_payload_file(path, Origin.at(source, source.revision()), b"vectors, and then ids", {"count": 28})
    cache = VectorCache(tmp_path)
    assert "made again" in cache.describe(source).reason
    assert_holds(cache.open(source), source)
    assert [one.getMessage() for one in caplog.records] == [
        f"The vector index is rebuilt from the catalogue: {path}: another kind of index file, or one of an "
        "earlier version."
    ]
    assert VectorCache(tmp_path).verify(source)


def test_verify_compares_with_the_source(tmp_path, source, unit):
    cache = VectorCache(tmp_path)
    assert not cache.verify(source)
    path = saved(tmp_path, source)
    source.add(unit(2, 4, seed=5))
    source.remove([4])
    assert cache.verify(source)

    source.rows[5] = (1, unit(1, 4, seed=77)[0])
    with pytest.raises(VectorCacheDamaged, match="another vector"):
        cache.verify(source)
    whole = path.read_bytes()
    del source.rows[5]  # without a tombstone
    with pytest.raises(VectorCacheDamaged, match="lacks"):
        cache.verify(source)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(VectorCacheDamaged, match="belong"):
        cache.verify(source)
    path.write_bytes(whole)
    source.identities = {0: "", 1: source.identities[1]}
    source.last = 1
    with pytest.raises(VectorCacheDamaged, match="another past"):
        cache.verify(source)


def test_verify_beside_a_writer_sees_no_damage(tmp_path, source):
    """A vector goes after the tombstones were read, before or after its own chunk was."""
    saved(tmp_path, source)
    plain = source.added_since

    def with_a_writer(revision):
        yield next(plain(revision))
        source.remove([1, 30])
        for ids, vectors in plain(revision):
            later = ids > 8  # the first chunk was 1 and 3 to 8
            yield ids[later], vectors[later]

    source.added_since = with_a_writer
    assert VectorCache(tmp_path).verify(source)


def test_discard_deletes_the_file(tmp_path, source):
    cache = VectorCache(tmp_path)
    cache.save(source)
    assert cache.keys() == [source.key]
    cache.discard(source)
    cache.discard(source)
    assert cache.keys() == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("key", ["../x", "", "a/b", "a.b", "x" * 129])
def test_a_key_that_cannot_name_a_file(tmp_path, key):
    with pytest.raises(ValueError, match="cannot name"):
        VectorCache(tmp_path).path(key)


def test_what_a_killed_process_left_is_cleared_once_old(tmp_path, source):
    young, old = (tmp_path / f".space.vectors.{digit * 16}.tmp" for digit in "0f")
    young.write_bytes(b"")
    old.write_bytes(b"")
    os.utime(old, (0, 0))
    saved(tmp_path, source)
    assert sorted(os.listdir(tmp_path)) == [young.name, "space.vectors"]


_APPEND_FOR_EVER = """
import sys, numpy as np
from pathlib import Path
from tests.vectors.conftest import MemorySource, unit_vectors
from vitmae_search.vectors import VectorCache
source = MemorySource(64)
source.revision_identity = str
cache = VectorCache(Path(sys.argv[1]).parent)
while True:
    source.add(unit_vectors(300, 64, seed=source.last))
    cache.save(source)
    print(source.last, flush=True)
"""

_SAVE_FOR_EVER = """
import sys, numpy as np
from pathlib import Path
from vitmae_search.vectors.file import Origin, write_vectors_file
random = np.random.default_rng(0)
rows = random.standard_normal((3000, 64))
rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
revision = 0
while True:
    revision += 1
    ids = np.arange(revision, revision + 3000)
    write_vectors_file(Path(sys.argv[1]), Origin("space", 64, revision, str(revision)), [(ids, rows)])
    print(revision, flush=True)
"""


@contextmanager
def running(program, path):
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    yield path, child
    child.kill()
    child.wait()
    child.stdout.close()


@pytest.fixture
def saving(tmp_path):
    """A real process that replaces the file again and again."""
    with running(_SAVE_FOR_EVER, tmp_path / "space.vectors") as started:
        yield started


@pytest.fixture
def appending(tmp_path):
    """A real process that appends 300 rows to the file again and again."""
    with running(_APPEND_FOR_EVER, tmp_path / "space.vectors") as started:
        yield started


@pytest.fixture
def any_revision(new_source):
    """A source that has had every revision that `saving` writes."""
    source = new_source(64)
    source.revision_identity = str
    return source


def test_whoever_reads_while_it_is_replaced_finds_a_whole_file(saving, any_revision):
    path, child = saving
    child.stdout.readline()
    for _ in range(150):
        file = VectorsFile(path, any_revision)
        assert file.ids[0] == file.origin.revision
        assert file.verify_checksum()


@pytest.mark.parametrize("milliseconds", [0, 1, 2, 4])
def test_a_kill_in_mid_save_leaves_the_old_file_or_the_new(saving, any_revision, milliseconds):
    path, child = saving
    told = int(child.stdout.readline())
    while not list(path.parent.glob(".*.tmp")):  # it is writing
        pass
    time.sleep(milliseconds / 1000)
    child.send_signal(signal.SIGKILL)
    child.wait()
    file = VectorsFile(path, any_revision)
    revision = file.origin.revision
    assert revision >= told
    assert file.ids.tolist() == list(range(revision, revision + 3000))
    assert file.verify_checksum()


def test_whoever_reads_while_it_is_appended_to_finds_whole_additions(appending, any_revision):
    path, child = appending
    child.stdout.readline()
    for _ in range(100):
        file = VectorsFile(path, any_revision)
        assert file.ids.tolist() == list(range(1, 300 * file.origin.revision + 1))
        assert file.verify_checksum()


@pytest.mark.parametrize("additions", [1, 3, 14])
def test_a_kill_in_mid_append_leaves_the_old_state_or_the_new(appending, any_revision, unit, additions):
    path, child = appending
    for _ in range(additions):
        told = int(child.stdout.readline())
    size = path.stat().st_size
    while path.stat().st_size == size:  # until the next addition is being written
        pass
    child.send_signal(signal.SIGKILL)
    child.wait()
    file = VectorsFile(path, any_revision)
    assert file.origin.revision >= told
    assert file.ids.tolist() == list(range(1, 300 * file.origin.revision + 1))
    assert file.verify_checksum()
    for number in range(file.origin.revision + 1):
        any_revision.add(unit(300, 64, seed=number))
    inode = path.stat().st_ino
    assert VectorCache(path.parent).save(any_revision)
    assert VectorCache(path.parent).verify(any_revision)
    assert path.stat().st_ino == inode


def test_searches_go_on_while_the_index_is_swapped(tmp_path, source, unit):
    """Each search sees one whole revision: as many ids as some moment of the source had."""
    cache = VectorCache(tmp_path)
    query = unit(1, 4)
    cache.open(source)
    sizes = {len(source.rows)}
    wrong: list[object] = []
    stop = threading.Event()

    def search() -> None:
        index = cache.open(source)
        while not stop.is_set():
            before = len(index)
            found = index.exact.search(query, 10_000)[0]
            if not len(found) == before == len(index) or len(found) not in sizes:
                wrong.append((len(found), before))
            with cache_swap:
                index = cache.open(source)

    cache_swap = threading.Lock()  # MemorySource is a plain dict: one reader or writer of it at a time
    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for step in range(60):
        with cache_swap:
            source.add(unit(20, 4, seed=step))
            source.remove(sorted(source.rows)[:5])
            sizes.add(len(source.rows))
            cache.open(source)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert_holds(cache.open(source), source)


def test_a_snapshot_is_never_changed(tmp_path, source, unit):
    cache = VectorCache(tmp_path)
    snapshot = cache.open(source)
    held = snapshot.exact.ids.tolist()
    source.add(unit(3, 4, seed=70))
    source.remove([1])
    assert cache.open(source).exact is not snapshot.exact
    assert snapshot.exact.ids.tolist() == held
    assert len(snapshot.exact.search(unit(1, 4), 1000)[0]) == len(held)
    assert 1 not in snapshot.search(unit(1, 4), 1000)[0].ids, "what is gone has no score any more"


def test_the_file_takes_an_empty_index(tmp_path, new_source):
    path = tmp_path / "deeper" / "x.vectors"
    source = new_source(5, "x")
    write_vectors_file(path, Origin.at(source, 0), [])
    file = VectorsFile(path, source)
    assert file.verify_checksum()
    index = ExactIndex.from_arrays(file.ids, file.vectors)
    assert len(index) == 0
    assert len(index.search(np.eye(1, 5, dtype=np.float32), 3)[0]) == 0
