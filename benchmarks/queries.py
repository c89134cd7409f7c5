"""Searches by pictures that people have changed: whether the photo comes first, and how long it takes.

    python -m benchmarks.queries FOLDER [--photos 1000] [--queries 300] [--seed 0]

Some photos of the folder are indexed with the bundled model. Others are left out of the library: what they
find is wrong. Queries are JPEG files in memory, as they are uploaded to the app.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from itertools import repeat
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.timing import describe_machine, markdown_table, time_interleaved
from vitmae_search import Library
from vitmae_search.photos import decode, read_photo, scan, views
from vitmae_search.records import SearchResult

WHITE = (255, 255, 255)
FIRST = 30


def corner_crop(image: Image.Image, number: int) -> Image.Image:
    """35 % of each side, from one of the corners.

    Args:
        image: RGB.
        number: Decides which.
    """
    position = (float(number % 2), float(number // 2 % 2))
    return views.crop(image, area=0.35**2, position=position)


CHANGES: Mapping[str, Callable[[Image.Image, int], Image.Image]] = {
    "screenshot, black bars": lambda image, _: views.phone_screenshot(image),
    "screenshot, white bars": lambda image, _: views.phone_screenshot(image, color=WHITE),
    "white margin, 10 %": lambda image, _: views.margin(image),
    "white margin, 25 %": lambda image, _: views.margin(image, width=0.25),
    "turned by 90°": lambda image, _: views.quarter_turn(image),
    "turned by 180°": lambda image, _: views.quarter_turn(image, turns=2),
    "turned by 15°, black corners": lambda image, _: views.tilt(image, degrees=15, fill=(0, 0, 0)),
    "turned by 15°, larger page": lambda image, _: image.rotate(15, Image.Resampling.BICUBIC, expand=True),
    "corner crop, 35 % of each side": corner_crop,
}


def opened(path: str) -> Image.Image:
    """The photo, RGB and upright."""
    return decode(read_photo(path), path=path).image


def encoded(image: Image.Image, image_format: str = "JPEG") -> bytes:
    """The file's bytes.

    Args:
        image: RGB.
        image_format: JPEG, of quality 85, or PNG.
    """
    buffer = BytesIO()
    image.save(buffer, image_format, quality=85)
    return buffer.getvalue()


def comes_first(found: SearchResult, path: str) -> bool:
    """Whether the photo is the first hit.

    Args:
        found: The result.
        path: The photo's path.
    """
    return bool(found.hits) and path in (found.hits[0].photo.path, *found.hits[0].copies)


def report_changes(library: Library, paths: Sequence[str]) -> None:
    """Print how often each change of a photo finds it: as it is, as searches do, and as a part.

    Args:
        library: The library.
        paths: Photos of it.
    """
    header = (
        "change",
        *(f"{how}, {of}" for how in ("as it is", "as searched") for of in (f"of {FIRST}", "all")),
    )
    rows = []
    for name, change in CHANGES.items():
        plain, searched, wholes = [], [], []
        for number, path in enumerate(paths):
            data = encoded(change(opened(path), number))
            plain.append(comes_first(library.search(data, k=1, variants=False), path))
            searched.append(comes_first(library.search(data, k=1), path))
            if "crop" in name:
                whole = library.find_whole(data)
                wholes.append(searched[-1] if whole is None else whole.hit.photo.path == path)
        rows.append(_row(name, plain, searched))
        if wholes:
            rows.append(_row(f"{name}, its whole looked for", plain, wholes))
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    print(markdown_table(header, rows))


def _row(name: str, *columns: Sequence[bool]) -> tuple[str, ...]:
    cells = [text for found in columns for text in (str(sum(found[:FIRST])), f"{np.mean(found):.1%}")]
    return (name, *cells)


def report_unknown(library: Library, paths: Sequence[str]) -> None:
    """Print what photos find of which the library has no copy.

    Args:
        library: The library.
        paths: The photos.
    """
    same, alike, turned, wholes = [], [], [], []
    for path in paths:
        data = encoded(opened(path))
        found, calibration = library.search(data, k=100), library.spaces()[-1].calibration
        turned.append(found.variant.turned != 0)
        wholes.append(library.find_whole(data) is not None)
        if calibration is not None and calibration.same is not None and calibration.alike is not None:
            same.append(found.hits[0].score >= calibration.same)
            alike.append(sum(hit.score >= calibration.alike for hit in found.hits))
    print(f"{len(paths)} photos that are not in the library: turned {np.mean(turned):.1%}, ", end="")
    print(f"taken for a part {np.mean(wholes):.1%}", end="")
    if same:
        print(f", a first hit that counts as the same photo {np.mean(same):.1%}, ", end="")
        print(f"median number of alike hits {statistics.median(alike)}", end="")
    print()


def report_times(library: Library, inside: Sequence[str], outside: Sequence[str]) -> None:
    """Print the median time of a search: as it is, as searched, and with its whole looked for.

    Args:
        library: The library.
        inside: Photos of it.
        outside: Others.
    """
    large = [opened(path).resize((4000, 3000)) for path in outside[:8]]
    screens = [views.phone_screenshot(opened(path)).resize((1080, 2340)) for path in outside[:8]]
    queries = {
        "a photo of the library": [read_photo(path) for path in inside[:20]],
        "a photo of the library, saved again": [encoded(opened(path)) for path in inside[:20]],
        "an unknown photo": [read_photo(path) for path in outside[:20]],
        "an unknown photo of 12 megapixels": list(map(encoded, large)),
        "an unknown screenshot, PNG, 1080 × 2340": [encoded(screen, "PNG") for screen in screens],
    }
    searches: dict[str, Callable[[bytes], object]] = {
        "as it is, ms": partial(library.search, k=24, variants=False),
        "as searched, ms": partial(library.search, k=24),
        "and its whole, ms": lambda data: (library.search(data, k=24), library.find_whole(data)),
    }
    rows = []
    for name, files in queries.items():
        seconds: dict[str, list[float]] = {search: [] for search in searches}
        for data in files:
            # Other bytes after the end each time, so that no vector is kept from the time before.
            tails = repeat(b"") if name == "a photo of the library" else map(bytes, zip(range(256)))
            runs = {search: partial(_run, run, data, tails) for search, run in searches.items()}
            timed = time_interleaved(runs, rounds=2)
            for search, values in timed.items():
                seconds[search] += values.tolist()
        rows.append((name, *(f"{1000 * statistics.median(values):.1f}" for values in seconds.values())))
    print(markdown_table(("query", *searches), rows))


def _run(run: Callable[[bytes], object], data: bytes, tails: Iterator[bytes]) -> None:
    run(data + next(tails))


def main() -> None:
    """Index, search, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--photos", type=int, default=1000, help="how many are indexed, at most")
    parser.add_argument("--queries", type=int, default=300, help="how many of them are changed")
    parser.add_argument("--unknown", type=int, default=100, help="how many are left out of the library")
    parser.add_argument("--seed", type=int, default=0, help="what is drawn")
    parser.add_argument("--only", choices=["changes", "unknown", "times"], help="print this alone")
    options = parser.parse_args()
    paths = [stamp.path for stamp in scan(options.folder, on_problem=print)]
    drawn = [paths[row] for row in np.random.default_rng(options.seed).permutation(len(paths))]
    outside, inside = drawn[: options.unknown], drawn[options.unknown :][: options.photos]
    print(describe_machine("torch"))
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        copies = [os.fspath(shutil.copy(path, photos / Path(path).name)) for path in inside]
        with Library.open(Path(folder) / "library") as library:
            library.index(photos)
            print(f"{library.count_photos()} photos in the library; {library.spaces()[-1].calibration}")
            if options.only in (None, "changes"):
                report_changes(library, copies[: options.queries])
            if options.only in (None, "unknown"):
                report_unknown(library, outside)
            if options.only in (None, "times"):
                report_times(library, copies, outside)


if __name__ == "__main__":
    main()
