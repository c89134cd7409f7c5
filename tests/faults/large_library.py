"""Index very many photos, and watch memory and rate meanwhile."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

PER_FOLDER = 1000


def write_photos(folder: Path, count: int) -> None:
    """Write distinct photos of 24 × 24 pixels, a thousand in a folder; those that are there stay.

    Args:
        folder: Where to.
        count: How many.
    """
    for start in range(0, count, PER_FOLDER):
        inside = folder / f"{start // PER_FOLDER:04d}"
        inside.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(start)
        for number in range(start, min(count, start + PER_FOLDER)):
            small = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            path = inside / f"{number:06d}.png"
            if not path.exists():
                Image.fromarray(small).resize((24, 24), Image.Resampling.BILINEAR).save(
                    path, compress_level=1
                )


@dataclass(frozen=True)
class Sample:
    """A moment of a run.

    Attributes:
        seconds: Since its start.
        photos: In the catalogue.
        megabytes: Of memory that the process and its children have for themselves (PSS).
    """

    seconds: float
    photos: int
    megabytes: float


@dataclass(frozen=True)
class Watched:
    """A command that was watched.

    Attributes:
        seconds: From start to end.
        samples: In their order.
    """

    seconds: float
    samples: list[Sample]

    def rates(self, parts: int) -> list[float]:
        """Photos a second in equal parts of the photos.

        Args:
            parts: How many.
        """
        busy = [sample for sample in self.samples if sample.photos]
        bounds = np.interp(
            np.linspace(busy[0].photos, busy[-1].photos, parts + 1),
            [sample.photos for sample in busy],
            [sample.seconds for sample in busy],
        )
        return list((busy[-1].photos - busy[0].photos) / parts / np.diff(bounds))

    def memory(self, parts: int) -> list[float]:
        """Most megabytes in equal parts of the photos.

        Args:
            parts: How many.
        """
        last = max(sample.photos for sample in self.samples) or 1
        most = [0.0] * parts
        for sample in self.samples:
            part = min(parts - 1, sample.photos * parts // last)
            most[part] = max(most[part], sample.megabytes)
        return most


def watch(library: Path, photos: Path, environment: Mapping[str, str]) -> Watched:
    """Index a folder in a process of its own, and look at it every second.

    Args:
        library: The library's folder.
        photos: The photos' folder.
        environment: Further variables.
    """
    words = ("index", photos, "--library", library, "--embedder", "color_layout", "--json")
    command = [sys.executable, "-m", "vitmae_search", *map(str, words)]
    started, samples = time.monotonic(), []
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None:
        time.sleep(1)
        samples.append(Sample(time.monotonic() - started, _photos(library), _megabytes(process.pid)))
    assert process.returncode == 0
    return Watched(time.monotonic() - started, samples)


def _photos(library: Path) -> int:
    with suppress(sqlite3.Error):
        file = (library / "catalogue.sqlite3").as_uri()
        with closing(sqlite3.connect(f"{file}?mode=ro", uri=True, timeout=10)) as catalogue:
            return int(catalogue.execute("SELECT count(*) FROM photos").fetchone()[0])
    return 0


def _megabytes(pid: int) -> float:
    total = 0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                total += each.memory_full_info().pss
    return total / 1e6
