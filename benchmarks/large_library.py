"""A large library to measure on: N small photos, all different, and a real library of them.

    python -m benchmarks.large_library FOLDER [--count 100000] [--embedder vitmae] [--precision bf16]
                                              [--seconds 600]

Makes FOLDER/photos and FOLDER/library. What exists is kept, so running it again resumes. Exit code 1 means
that it stopped after `--seconds` with more to do.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from vitmae_search.errors import display_path
from vitmae_search.library import Library, write_samples

COUNT = 100_000
SIZE = (160, 120)
PHOTOS_PER_FOLDER = 1000
CAMERAS = ("Camera A", "Camera B", "Camera C")
_FIRST_TAKEN = datetime(2010, 1, 1, 12)  # local time, as EXIF has it
_INTERVAL = timedelta(minutes=73)
_EXIF_MODEL, _EXIF_DATE, _EXIF_IFD = 0x0110, 0x9003, 0x8769


def main() -> int:
    """Make what is missing, and print what there is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--embedder", default="vitmae")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    chosen = parser.parse_args()
    deadline = time.monotonic() + chosen.seconds
    made = make_photos(chosen.folder / "photos", chosen.count, deadline=deadline)
    print(f"{made} of {chosen.count} photos in {display_path(chosen.folder / 'photos')}", flush=True)
    if made < chosen.count:
        return 1
    whole = make_library(chosen.folder, chosen.embedder, chosen.precision, deadline=deadline)
    with Library.open(chosen.folder / "library") as library:
        print(f"{library.status().photos} of them in {display_path(library.folder)}")
    return 0 if whole else 1


def make_photos(folder: Path, count: int, *, first: int = 0, deadline: float = float("inf")) -> int:
    """Write photos `first` to `first + count - 1`, a thousand in each folder; existing ones are kept.

    Photo n is a crop of one of the demo's photos in other colours with a date of its own. No two files are
    the same, and every run writes the same ones.

    Args:
        folder: Where they are written.
        count: How many.
        first: The number of the first.
        deadline: The `time.monotonic()` at which to stop.

    Returns:
        How many of them exist now.
    """
    sources: list[Image.Image] = []
    for number in range(first, first + count):
        path = photo_path(folder, number)
        if os.path.exists(path):
            continue
        if time.monotonic() > deadline:
            return number - first
        sources = sources or _sources()
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, number, sources)
    return count


def photo_path(folder: Path, number: int) -> Path:
    """The path of photo `number`.

    Args:
        folder: As given to `make_photos`.
        number: The photo's number, from 0.
    """
    return folder / f"{number // PHOTOS_PER_FOLDER:04d}" / f"photo-{number:07d}.jpg"


def make_library(
    folder: Path,
    embedder: str | None = None,
    precision: str = "auto",
    *,
    deadline: float = float("inf"),
) -> bool:
    """Index folder/photos into folder/library, incrementally.

    Args:
        folder: As on the command line.
        embedder: A plugin's name; None is the default one.
        precision: "auto", "fp32" or "bf16".
        deadline: The `time.monotonic()` at which to stop.

    Returns:
        False if the deadline stopped it.
    """
    with Library.open(folder / "library", embedder=embedder, precision=precision) as library:
        report = library.index(folder / "photos", cancelled=lambda: time.monotonic() > deadline)
    return not report.interrupted


def _sources() -> list[Image.Image]:
    with tempfile.TemporaryDirectory() as name:
        write_samples(Path(name))
        return [Image.open(path).convert("RGB") for path in sorted(Path(name).glob("*-00-*.jpg"))]


def _write(path: Path, number: int, sources: list[Image.Image]) -> None:
    random = np.random.default_rng(number)
    source = sources[random.integers(len(sources))]
    scale = random.uniform(0.3, 1.0) * min(source.width / SIZE[0], source.height / SIZE[1])
    width, height = SIZE[0] * scale, SIZE[1] * scale
    left, top = random.uniform(0, source.width - width), random.uniform(0, source.height - height)
    box = (left, top, left + width, top + height)
    image = source.resize(SIZE, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    image = ImageEnhance.Color(image).enhance(random.uniform(0.4, 1.6))
    gains = random.uniform(0.7, 1.3, 3)
    levels = [min(255, round(level * gain)) for gain, level in itertools.product(gains, range(256))]
    exif = Image.Exif()
    exif[_EXIF_MODEL] = CAMERAS[random.integers(len(CAMERAS))]
    exif.get_ifd(_EXIF_IFD)[_EXIF_DATE] = (_FIRST_TAKEN + number * _INTERVAL).strftime("%Y:%m:%d %H:%M:%S")
    partial = path.with_suffix(".partial")
    image.point(levels).save(partial, "JPEG", quality=85, exif=exif)
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
