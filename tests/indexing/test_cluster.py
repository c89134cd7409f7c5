"""Embedding on a real Ray cluster: two nodes on this machine, of which one is killed in mid-run.

Skipped where the extra `ray` is not installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from vitmae_search import Library
from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import LibraryError

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")

INTERRUPTED = ["stopping after this batch", "interrupted"]

PLUGIN = '''
"""Embeds slowly."""
import time
from tests.helpers.mean_dominated_plugin import MeanDominated
from vitmae_search.embedding import EmbedderPlugin, PluginInfo


class Slow(MeanDominated):
    model = "slow"

    def embed(self, batch):
        time.sleep(0.2)
        return super().embed(batch)


class Plugin(EmbedderPlugin):
    info = PluginInfo(name="slow", title="Slow", options={"side": 8})

    def open(self, options, *, device, precision):
        return Slow()


plugin = Plugin()
'''


@dataclass(frozen=True)
class Nodes:
    """A cluster of two nodes; `raylet` is the second one's first process."""

    address: str
    raylet: int

    def kill_second(self) -> None:
        """End the second node as a power cut does: its raylet and the workers it started."""
        listed = subprocess.run(
            ["/usr/bin/ps", "--ppid", str(self.raylet), "-o", "pid="],
            capture_output=True,
            text=True,
            check=False,
        )
        for pid in (self.raylet, *map(int, listed.stdout.split())):
            os.kill(pid, signal.SIGKILL)


def environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.fspath(ROOT),
        "VITMAE_SEARCH_PLUGINS": os.fspath(home / "plugins"),
        "VITMAE_SEARCH_CACHE": os.fspath(home / "cache"),
    }


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    home = tmp_path_factory.mktemp("cluster")
    command = [sys.executable, os.fspath(ROOT / "tests/helpers/ray_cluster.py")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(home), text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        lines = iter(process.stdout.readline, "")
        yield Nodes(**json.loads(next(line for line in lines if line.startswith("{"))))
        process.stdin.close()


def rows(library: Path) -> tuple[object, object]:
    """All that a run records, but for ids and times."""
    with CatalogWriter.open_writer(library) as catalog:
        space = catalog.current_space()
        assert space is not None
        photos = [
            (
                p.path,
                p.digest,
                p.size,
                p.mtime_ns,
                p.metadata,
                catalog.vector(space.space_id, p.content_id).tobytes(),
            )
            for p in catalog.photos(missing=None)
        ]
        failures = {(f.path, f.reason, f.tried_with) for f in catalog.failures(space.space_id)}
        assert space.vectors == len({photo[1] for photo in photos})
    return sorted(photos, key=lambda photo: photo[0]), failures


def run(
    words: list[object], home: Path, at_first: Callable[[subprocess.Popen[str]], None]
) -> tuple[int, str, str]:
    """Run a command, and do something when it has begun to index. Its exit status, stderr and stdout."""
    with subprocess.Popen(
        list(map(str, words)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(home),
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        said = ""
        for line in iter(process.stderr.readline, ""):
            said += line
            if line.startswith("indexing"):
                at_first(process)
                break
        said += process.stderr.read()
        printed = process.stdout.read()
    return process.returncode, said, printed


def without_progress(said: str) -> list[str]:
    phases = ("scanning", "indexing", "finishing", "done")
    return [line for line in said.splitlines() if line.split(":")[0] not in phases]


def test_a_run_whose_node_is_killed_or_that_is_interrupted_records_what_one_machine_does(
    nodes: Nodes, tmp_path: Path, write_photo: Callable[[Path, int], Path]
) -> None:
    photos, plugins = tmp_path / "photos", tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "slow.py").write_text(PLUGIN)
    for seed in range(120):
        write_photo(photos / f"{seed:03}.jpg", seed)
    shutil.copy(photos / "003.jpg", photos / "119-copy.jpg")
    shutil.copy(photos / "118.jpg", photos / "000-copy.jpg")
    (photos / "broken.jpg").write_bytes((photos / "002.jpg").read_bytes()[:600])
    (photos / "text.jpg").write_text("no photo")
    with Library.open(tmp_path / "plain", embedder="slow", plugin_folders=[plugins], batch_size=4) as plain:
        expected = plain.index(photos)

    command = [
        "-m",
        "vitmae_search",
        "index",
        "--embedder",
        "slow",
        "--batch-size",
        "4",
        "--json",
        "--library",
    ]
    words = [sys.executable, *command, tmp_path / "library", "--ray", nodes.address, photos]
    code, said, printed = run(words, tmp_path, lambda process: nodes.kill_second())
    report = json.loads(printed)
    assert code == 0, said
    assert (report["added"], report["failed"]) == (expected.added, expected.failed) == (122, 2)
    assert without_progress(said) == []
    assert rows(tmp_path / "library") == rows(tmp_path / "plain")
    with Library.open(tmp_path / "library") as library:
        jobs = library.jobs()
        assert [(job.kind, job.state) for job in jobs] == [("index", "done")]
        assert all(library.thumbnails.get(photo.digest) for photo in library.photos())

    # What is gone, moved or copied since: on the one node that is left, and nothing is embedded twice.
    shutil.move(photos / "005.jpg", photos / "new name.jpg")
    words += ["--rescan"]
    code, said, printed = run(words, tmp_path, lambda process: None)
    assert code == 0, said
    report = json.loads(printed)
    assert (report["moved"], report["unchanged"], report["added"]) == (1, 121, 0)

    words[words.index(tmp_path / "library")] = tmp_path / "interrupted"
    code, said, _ = run(words, tmp_path, lambda process: process.send_signal(signal.SIGINT))
    assert code == 130, said
    assert [line.split(";")[0] for line in without_progress(said)] == INTERRUPTED
    with Library.open(tmp_path / "interrupted") as library:
        assert 0 < library.status().photos < 122


def test_a_cluster_that_is_not_there(tmp_path: Path, write_photo: Callable[[Path, int], Path]) -> None:
    write_photo(tmp_path / "photos" / "one.jpg", 1)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Library.open(tmp_path / "library", embedder="color_layout") as library,
    ):
        port = silent.getsockname()[1]
        for address, message in (
            (f"127.0.0.1:{port}", "no Ray cluster answers at 127.0.0.1"),
            ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1: Connection refused"),
            ("ray://127.0.0.1:10001", "name HOST:PORT"),
        ):
            with pytest.raises(LibraryError, match=message):
                library.index(tmp_path / "photos", ray=address)
        assert library.index(tmp_path / "photos").added == 1
