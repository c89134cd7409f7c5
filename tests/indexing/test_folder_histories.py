"""Any history of a folder, with runs in between, ends in what a look at every file says."""

import os
import shutil

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from vitmae_search.indexing import batcher
from vitmae_search.photos import digest

NAMES = [f"{folder}{name}.jpg" for folder in ("", "sub/") for name in "abcd"]
names = st.sampled_from(NAMES)
numbers = st.integers(0, 5)
actions = st.one_of(
    st.tuples(st.sampled_from(["write", "break"]), names, numbers),
    st.tuples(st.sampled_from(["delete", "touch"]), names),
    st.tuples(st.sampled_from(["rename", "copy", "swap"]), names, names),
)


class FolderModel(RuleBasedStateMachine):
    def __init__(self, new_bench, jpegs, new_head) -> None:
        super().__init__()
        self.bench, self.jpegs, self.new_head = new_bench(), jpegs, new_head
        self.clock = 10**18
        (self.bench.photos / "sub").mkdir()
        self.write(self.path("anchor.jpg"), self.jpegs(99))  # a root without a photo would be offline

    def path(self, name):
        return self.bench.photos / name

    def write(self, path, data):
        # Each write gets a date of its own, as in life; the file system's ticks are too coarse for a test.
        self.clock += 1
        path.write_bytes(data)
        os.utime(path, ns=(self.clock, self.clock))

    def apply(self, action, name, other=None):
        path = self.path(name)
        if action == "write":
            self.write(path, self.jpegs(other))
        elif action == "break":
            self.write(path, self.jpegs(other)[: 300 + other])
        elif not path.exists():
            return
        elif action == "delete":
            path.unlink()
        elif action == "touch":
            self.write(path, path.read_bytes())
        elif action == "rename":
            path.rename(self.path(other))
        elif action == "copy" and other != name:
            shutil.copy2(path, self.path(other))
        elif action == "swap" and other != name and self.path(other).exists():
            path.rename(self.path("x"))
            self.path(other).rename(path)
            self.path("x").rename(self.path(other))

    @rule(
        done=st.lists(actions, max_size=8),
        revision=st.sampled_from([1, 1, 1, 2]),
        batch_size=st.integers(1, 5),
        max_without_pixels=st.sampled_from([0, 1, 256]),
        retry=st.booleans(),
        heads=st.sampled_from([0, 0, 1, 2]),
    )
    def change_and_index(self, done, revision, batch_size, max_without_pixels, retry, heads):
        self.bench.heads = [self.new_head(n) for n in range(max(heads, len(self.bench.heads)))]
        for action in done:
            self.apply(*action)
        self.bench.revision = revision
        self.bench.decodes_here = True  # for speed
        embedded = self.embedded_digests()
        files = [path.read_bytes() for path in self.bench.photos.rglob("*.jpg")]
        good = [data for data in files if self.bench.vector_of(data) is not None]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batcher, "_MAX_WITHOUT_PIXELS", max_without_pixels)
            report = self.bench.index(batch_size=batch_size, retry_failed=retry)
        assert (report.found, report.failed) == (len(files), len(files) - len(good))
        assert self.bench.embedded == len({digest(data) for data in good} - embedded)
        self.bench.assert_mirrors_disk()

    def embedded_digests(self):
        with self.bench.catalog() as catalog:
            space = catalog.space_of(self.bench.fingerprint())
            if space is None:
                return set()
            photos = catalog.photos(missing=None)
            return {p.digest for p in photos if catalog.vector(space.space_id, p.content_id) is not None}

    def teardown(self):
        shutil.rmtree(self.bench.photos.parent)


def test_any_history(new_bench, jpegs, new_head):
    run_state_machine_as_test(
        lambda: FolderModel(new_bench, jpegs, new_head),
        settings=settings(max_examples=7, stateful_step_count=5, deadline=None),
    )
