"""Searching by a part of a photo: what comparing patches adds to the vector of the part, and what it costs.

    python -m benchmarks.region_search FOLDER [--queries 40] [--among 200]

Two kinds of parts, each of about a quarter and a ninth of the query's area. *Details*: a cut-out of a photo
of the library, pasted into another photo at another size; the photo is looked for. *Objects*: the middle of a
photo, pasted into two others at other places and sizes, one of them lighter or darker; one is the query, the
other is in the library. What is pasted from, and queries, are not in the library.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from benchmarks.timing import describe_machine, markdown_table
from vitmae_search import Library
from vitmae_search.library.region_search import cut_out
from vitmae_search.photos import PHOTO_PROCESSES, scan
from vitmae_search.records import Box, SearchResult

AREAS = {"1/4": 1 / 4, "1/9": 1 / 9}
SIDE = 640
OVERLAP = 0.5
"""Intersection over union from which on a place counts as found."""


@dataclass(frozen=True, slots=True)
class Case:
    """A query and what it should find: a file's name in the library, and where in it."""

    kind: str
    picture: Image.Image
    box: Box
    target: str
    place: Box


@dataclass(frozen=True, slots=True)
class Found:
    """The rank of a query's target, None where it is not among the hits, and how far its place overlaps."""

    rank: int | None
    overlap: float
    seconds: float


def pasted(
    background: Image.Image, part: Image.Image, area: float, random: np.random.Generator
) -> tuple[Image.Image, Box]:
    """A picture with a part of another one on it, and where.

    Args:
        background: The picture.
        part: What is pasted.
        area: Its share of the area.
        random: Draws the place.
    """
    width, height = background.size
    high = math.sqrt(area * width * height * part.height / part.width)
    wide = area * width * height / high
    shrink = min(1, 0.95 * width / wide, 0.95 * height / high)
    size = max(8, round(wide * shrink)), max(8, round(high * shrink))
    left, top = int(random.integers(width - size[0] + 1)), int(random.integers(height - size[1] + 1))
    result = background.copy()
    result.paste(part.resize(size, Image.Resampling.LANCZOS), (left, top))
    return result, Box(left / width, top / height, size[0] / width, size[1] / height)


def make_cases(photos: Sequence[Path], folder: Path, queries: int) -> Iterator[Case]:
    """Fill a folder with photos, and give the queries.

    Args:
        photos: Files to take photos of.
        folder: An empty folder.
        queries: How many of each kind and area.
    """
    random = np.random.default_rng(0)
    order = iter(random.permutation(len(photos)).tolist())

    def photo() -> Image.Image:
        image = PHOTO_PROCESSES.load(str(photos[next(order)]), SIDE).image
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        return image

    def save(image: Image.Image, name: str) -> str:
        image.save(folder / name, quality=92)
        return name

    for label, area in AREAS.items():
        for number in range(queries):
            whole = photo()
            side = math.sqrt(area)
            left, top = random.uniform(0, 1 - side, 2).tolist()
            place = Box(left, top, side, side)
            picture, box = pasted(photo(), cut_out(whole, place), area * random.uniform(0.8, 1.6), random)
            name = save(whole, f"detail-{label.replace('/', '-')}-{number}.jpg")
            yield Case(f"detail, {label}", picture, box, name, place)
            middle = cut_out(photo(), Box(0.15, 0.15, 0.7, 0.7))
            picture, box = pasted(photo(), middle, area, random)
            changed = ImageEnhance.Brightness(middle).enhance(random.uniform(0.8, 1.2))
            composed, place = pasted(photo(), changed, area * random.uniform(0.7, 1.4), random)
            name = save(composed, f"object-{label.replace('/', '-')}-{number}.jpg")
            yield Case(f"object, {label}", picture, box, name, place)
    for number in order:
        image = PHOTO_PROCESSES.load(str(photos[number]), SIDE).image
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        save(image, f"other-{number}.jpg")


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes.

    Args:
        one: A box.
        other: Another one.
    """
    wide = min(one.left + one.width, other.left + other.width) - max(one.left, other.left)
    high = min(one.top + one.height, other.top + other.height) - max(one.top, other.top)
    both = max(0.0, wide) * max(0.0, high)
    return both / (one.width * one.height + other.width * other.height - both)


def measure(case: Case, search: Callable[[Case], SearchResult]) -> Found:
    """Ask for a case.

    Args:
        case: The query.
        search: Searches for it.
    """
    start = time.perf_counter()
    hits = search(case).hits
    seconds = time.perf_counter() - start
    hit = next((hit for hit in hits if Path(hit.photo.path).name == case.target), None)
    if hit is None:
        return Found(None, 0.0, seconds)
    return Found(hit.rank, 0.0 if hit.box is None else overlap(hit.box, case.place), seconds)


def row(kind: str, way: str, found: Sequence[Found], *, places: bool) -> list[str]:
    """A line of the table.

    Args:
        kind: What was searched by.
        way: How.
        found: The outcome of each query.
        places: Whether hits have places.
    """
    ranks = [math.inf if one.rank is None else one.rank for one in found]
    figures = [np.mean([rank <= limit for rank in ranks]) for limit in (1, 10, 100)]
    placed = f"{100 * np.mean([one.overlap >= OVERLAP for one in found]):.0f}" if places else "–"
    seconds = float(np.median([one.seconds for one in found]))
    return [kind, way, *(f"{100 * figure:.0f}" for figure in figures), placed, f"{seconds:.2f}"]


def costs(library: Library, among: int) -> list[list[str]]:
    """Seconds to read so many photos as thumbnails and from their files, as lines of a table.

    Args:
        library: The library.
        among: How many.
    """
    photos = library.photos(limit=among)
    start = time.perf_counter()
    for photo in photos:
        library.thumbnail(photo.photo_id)
    thumbnails = time.perf_counter() - start
    start = time.perf_counter()
    for photo in photos:
        PHOTO_PROCESSES.load(photo.path, 320)
    files = time.perf_counter() - start
    return [[f"{len(photos)} thumbnails", f"{thumbnails:.2f}"], [f"{len(photos)} files", f"{files:.2f}"]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures as Markdown tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--among", type=int, default=200)
    asked = parser.parse_args(arguments)
    photos = [Path(stamp.path) for stamp in scan(str(asked.folder), on_problem=print)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "photos"
        folder.mkdir()
        cases = list(make_cases(photos, folder, asked.queries))
        with Library.open(Path(temporary) / "library") as library:
            count = library.index(folder).added
            library.preload(model=True)
            ways: dict[str, Callable[[Case], SearchResult]] = {
                "the part, cut out": lambda case: library.search(
                    cut_out(case.picture, case.box), k=among, stacks=False
                ),
                "the whole picture": lambda case: library.search(case.picture, k=among, stacks=False),
                "patches": lambda case: library.search_region(case.picture, case.box, k=among, among=among),
            }
            among = asked.among
            start = time.perf_counter()
            ways["patches"](cases[0])
            first = time.perf_counter() - start
            print(
                describe_machine(), f"{count} photos, {asked.queries} queries a line", sep="\n\n", end="\n\n"
            )
            rows = [
                row(
                    kind,
                    way,
                    [measure(one, search) for one in cases if one.kind == kind],
                    places=way == "patches",
                )
                for kind in sorted({case.kind for case in cases})
                for way, search in ways.items()
            ]
            print(
                markdown_table(
                    ["part", "searched by", "first, %", "of 10, %", "of 100, %", "place, %", "seconds"], rows
                )
            )
            costly = [["a first search by patches", f"{first:.2f}"], *costs(library, among)]
            print("\n" + markdown_table(["cost", "seconds"], costly))


if __name__ == "__main__":
    main()
