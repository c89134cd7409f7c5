"""Any history of photos and commands: catalogue, index and brute force agree, and no id is used again."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.faults.scenarios import Home, write_photo
from tests.faults.truth import Truth, wrong_hits

pytestmark = pytest.mark.timeout(0)

MODELS = ("plain", "color_layout")
K = 5

names = st.sampled_from([f"{folder}{name}.jpg" for folder in ("", "sub/") for name in "abcde"])
seeds = st.integers(0, 8)


class Histories(RuleBasedStateMachine):
    """What a person does to photos and library, and what must be true after each `index`."""

    def __init__(self, folder: Path, server) -> None:
        super().__init__()
        self.home = Home(folder / str(time.monotonic_ns()), server)
        self.model, self.clock = MODELS[0], 10**18
        self.backup: Path | None = None
        self.ids: set[tuple[str, int]] = set()
        self.gone: set[tuple[str, int]] = set()
        self.ids_of_backup: tuple[set[tuple[str, int]], set[tuple[str, int]]] = set(), set()
        self.write("anchor.jpg", 99)

    def teardown(self) -> None:
        self.agree()
        shutil.rmtree(self.home.folder)

    def path(self, name: str) -> Path:
        return self.home.photos / name

    def stamp(self, path: Path) -> None:
        """Give each change a date of its own, as in life; a file system's ticks are too coarse for a test."""
        self.clock += 1
        os.utime(path, ns=(self.clock, self.clock))

    # What is done to photos

    @rule(name=names, seed=seeds)
    def write(self, name: str, seed: int) -> None:
        write_photo(self.path(name), seed)
        self.stamp(self.path(name))

    @rule(name=names, size=st.integers(1, 400))
    def fail(self, name: str, size: int) -> None:
        self.write(name, size)
        self.path(name).write_bytes(self.path(name).read_bytes()[:size])
        self.stamp(self.path(name))

    @rule(name=names, other=names)
    def rename(self, name: str, other: str) -> None:
        if self.path(name).exists():
            self.path(other).parent.mkdir(exist_ok=True)
            self.path(name).rename(self.path(other))

    @rule(name=names, other=names)
    def copy(self, name: str, other: str) -> None:
        if self.path(name).exists() and name != other:
            self.path(other).parent.mkdir(exist_ok=True)
            shutil.copy2(self.path(name), self.path(other))

    @rule(name=names)
    def delete(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    # What is done to the library

    @rule()
    def index(self) -> None:
        self.agree()

    @rule(seconds=st.floats(0, 0.4))
    def kill(self, seconds: float) -> None:
        server = self.home.server
        server.start(self.command(), self.home.environment())
        time.sleep(seconds)
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        self.note_ids()

    @rule(model=st.sampled_from(MODELS))
    def switch_model(self, model: str) -> None:
        self.model = model
        self.home.must(*self.command())
        spaces = self.home.must("spaces", "--json").json["spaces"]
        number = next(space["id"] for space in spaces if space["plugin"] == model)
        self.home.must("spaces", "use", str(number))
        self.agree()

    @rule()
    def back_up(self) -> None:
        self.agree()
        self.backup = self.home.folder / "backup.sqlite3"
        with (
            closing(sqlite3.connect(self.home.library / "catalogue.sqlite3")) as source,
            closing(sqlite3.connect(self.backup)) as target,
        ):
            source.backup(target)
        self.ids_of_backup = set(self.ids), set(self.gone)

    @precondition(lambda self: self.backup is not None)
    @rule()
    def restore(self) -> None:
        assert self.backup is not None
        for end in ("-wal", "-shm", "-journal"):
            (self.home.library / f"catalogue.sqlite3{end}").unlink(missing_ok=True)
        shutil.copy(self.backup, self.home.library / "catalogue.sqlite3")
        self.ids, self.gone = map(set, self.ids_of_backup)
        spaces = self.home.must("spaces", "--json").json["spaces"]
        self.model = next(space["plugin"] for space in spaces if space["current"])

    @rule()
    def prune(self) -> None:
        self.agree()
        self.home.must("prune")
        assert not any(missing for _, missing in Truth.of(self.home.library).photos.values())
        self.note_ids()

    @rule()
    def forget(self) -> None:
        self.agree()
        self.home.must("forget", self.home.photos)
        assert Truth.of(self.home.library).photos == {}
        self.note_ids()

    # What must be true

    def command(self) -> tuple[str | Path, ...]:
        return (
            "index",
            self.home.photos,
            "--embedder",
            self.model,
            "--projection",
            "none",
            "--batch-size",
            "2",
        )

    def agree(self) -> None:
        """Index, and compare the library with the files, and searches with brute force."""
        self.home.must(*self.command())
        truth = Truth.of(self.home.library)
        files = [path for path in self.home.photos.rglob("*.jpg") if path.is_file()]
        on_disk = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        for path, digest in on_disk.items():
            if path not in truth.failures:
                assert truth.photos[path] == (digest, False)
                assert (truth.spaces[0], digest) in truth.vectors
        assert all(missing for path, (_, missing) in truth.photos.items() if path not in on_disk)
        for query in truth.searchable()[:2]:
            hits = self.home.must("search", query, "--json", "-k", str(K)).json["hits"]
            assert wrong_hits(truth, query, hits, K) == []
        self.check()
        self.note_ids()

    def check(self) -> None:
        """After a restore, index files of other spaces may be of the lost history: said, and mended."""
        done = self.home.run("check")
        if done.code:
            problems = [line for line in done.out.splitlines() if line.startswith("problem ")]
            assert self.backup is not None
            assert problems
            assert all("another past of the catalogue" in line for line in problems), done.out
            self.home.must("check", "--repair")
            self.home.must("check")

    def note_ids(self) -> None:
        """An id that was there and is gone never comes back."""
        file = self.home.library / "catalogue.sqlite3"
        if not file.exists() or not file.stat().st_size:
            return
        with closing(sqlite3.connect(file)) as catalogue:
            if not catalogue.execute("SELECT 1 FROM sqlite_master WHERE name = 'embeddings'").fetchall():
                return
            now = {
                (table, number)
                for table, column in (("photos", "photo_id"), ("embeddings", "embedding_id"))
                for (number,) in catalogue.execute(f"SELECT {column} FROM {table}")
            }
        assert not now & self.gone
        self.gone |= self.ids - now
        self.ids = now


def test_any_history(server, tmp_path, amount, record_property) -> None:
    examples, steps = amount(2, 20, 100), amount(12, 20, 30)
    counted = []

    def machine() -> Histories:
        counted.append(1)
        return Histories(tmp_path, server)

    phases = [Phase.explicit, Phase.generate]  # to shrink would take hours
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=steps, phases=phases, database=None),
    )
    record_property("figures", f"histories: {len(counted)} of up to {steps} steps, 0 faults")
