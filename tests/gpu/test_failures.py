"""A device that is lost in mid-run, and one that is full: what was done is kept, and vectors are the same."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitmae_search.embedding import GuardedEmbedder
from vitmae_search.errors import DeviceError
from vitmae_search.indexing.batcher import run_with_fallback
from vitmae_search.library import Library

BATCH = 8


def test_a_lost_device_keeps_two_batches_and_another_process_resumes(
    device: str, samples: Path, reference: Path, tmp_path: Path, features: Callable
) -> None:
    plugins, library = tmp_path / "plugins", tmp_path / "library"
    plugins.mkdir()
    shutil.copy(Path(__file__).parents[1] / "helpers" / "lost_plugin.py", plugins / "lost.py")
    words = ["index", str(samples), "--embedder", "lost", "--device", device, "--library", str(library)]

    def index() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vitmae_search", *words, "--batch-size", str(BATCH)],
            env={**os.environ, "VITMAE_SEARCH_PLUGINS": str(plugins), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    done = index()
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "device-side assert triggered" in line
    assert "is kept" in line
    with Library.open(library, plugin_folders=[plugins]) as opened:
        kept = features(opened)
        assert len(kept) == 2 * BATCH
    (plugins / "sound").touch()
    done = index()
    assert done.returncode == 0, done.stderr
    with (
        Library.open(library, plugin_folders=[plugins]) as opened,
        Library.open(reference) as expected,
    ):
        whole, due = features(opened), features(expected)
    assert whole.keys() == due.keys()
    assert all(np.array_equal(whole[path], kept[path]) for path in kept)
    assert min(float(whole[path] @ due[path]) for path in due) >= 0.9995


def prepared(embedder: GuardedEmbedder, samples: Path, count: int) -> list[np.ndarray]:
    """`count` photos as the embedder takes them; a few, again and again."""
    few = [embedder.prepare(Image.open(path).convert("RGB")) for path in sorted(samples.glob("*.jpg"))[:16]]
    return [few[n % len(few)] for n in range(count)]


@contextmanager
def room(device: str, embedder: GuardedEmbedder, size: int) -> Iterator[None]:
    """Memory for no more than `size` bytes beside what is there; on a CPU for a photo a megabyte."""
    if device == "cuda":
        embedder.offload()
        total = torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + size) / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    embed = embedder._embedder.embed

    def full(batch: np.ndarray) -> np.ndarray:
        if len(batch) > size >> 20:
            logging.getLogger("test").warning("The device's memory is short")
            raise MemoryError("no room")
        return embed(batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedder._embedder, "embed", full)
        yield


def test_where_memory_is_short_parts_are_smaller_and_vectors_the_same(
    device: str,
    samples: Path,
    open_bundled: Callable[..., GuardedEmbedder],
    caplog: pytest.LogCaptureFixture,
) -> None:
    embedder = open_bundled(device, "bf16")
    rows = prepared(embedder, samples, 4096 if device == "cuda" else 18)
    whole = np.stack(run_with_fallback(embedder.embed, np.stack(rows)))
    for size in (2**30, 2**29, 2**28, 2**27, 2**24):
        with room(device, embedder, size):
            try:
                some = np.stack(run_with_fallback(embedder.embed, np.stack(rows)))
            except DeviceError as error:  # not even one fits, and that is said
                if "not enough memory" not in str(error):
                    raise
                break
        assert (some.astype(np.float64) * whole).sum(axis=1).min() >= 0.9999
        if "memory is short" in caplog.text:
            break
    assert "memory is short" in caplog.text
    again = np.stack(run_with_fallback(embedder.embed, np.stack(rows)))
    assert (again.astype(np.float64) * whole).sum(axis=1).min() >= 0.9999, "with all of the memory again"


def test_no_room_for_a_search_is_one_sentence(device: str, samples: Path, reference: Path) -> None:
    other = Image.open(samples / "astronaut-00-original.jpg").rotate(3)
    with Library.open(reference, device=device) as library:
        before = library.search(other, k=3).hits
        (embedder,) = library._embedders._open.values()
        with room(device, embedder, 0):
            with pytest.raises(DeviceError, match="not enough memory"):
                library.search(other.rotate(1))
            known = samples / "astronaut-00-original.jpg"
            assert library.search(known, k=1).hits[0].photo.path == str(known)
        after = library.search(other, k=3).hits
        assert [hit.photo for hit in after] == [hit.photo for hit in before], "there is room again"
