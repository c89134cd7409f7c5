"""How long `neighbours` takes among many photos: for the first photo, for further ones, and for all at once.

    python -m benchmarks.neighbours [--count 20000] [--dimension 256] [--further 10]

Vectors are made at random, in clusters, and written into a library without photo files. The memory is all
that the process had at most, with Python, its libraries and the making of the vectors.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.timing import describe_machine, markdown_table
from benchmarks.vector_data import clustered_vectors
from vitmae_search.catalog import CatalogWriter, Indexed
from vitmae_search.library import Library
from vitmae_search.records import PhotoMetadata, Stamp

_BATCH = 2000

Row = tuple[str, str]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--further", type=int, default=10)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), chosen.count, chosen.dimension)
        rows = list(neighbour_rows(Path(folder), chosen.further))
    print(describe_machine("numpy"))
    print(markdown_table((f"{chosen.count:,} photos of {chosen.dimension} numbers", "figure"), rows))


def fill(folder: Path, count: int, dimension: int) -> None:
    """Make a library of vectors without photo files.

    Args:
        folder: The library's.
        count: How many.
        dimension: Numbers in a vector.
    """
    draw = clustered_vectors(dimension)
    metadata = PhotoMetadata(40, 30, "JPEG", None, None)
    with CatalogWriter.open_writer(folder) as writer:
        space = writer.ensure_space(
            fingerprint="0" * 64,
            plugin="color_layout",
            model="random vectors",
            dimension=dimension,
            decode="scaled",
            options={},
            identity={"vectors": "random"},
            provenance={},
        )
        for start in range(0, count, _BATCH):
            vectors = draw(min(_BATCH, count - start), np.random.default_rng([start]), False)
            items = [
                Indexed(Stamp(f"/photos/{number}.jpg", 1, 1, device=0), f"{number:064x}", metadata, vector)
                for number, vector in enumerate(vectors, start)
            ]
            writer.record_batch(space.space_id, items)


def neighbour_rows(folder: Path, further: int) -> Iterator[Row]:
    """Time the first photo, further ones, and all photos, in this order.

    Args:
        folder: The library.
        further: How many further photos.
    """
    with Library.open(folder) as library:
        photos = library.photos()
        drawn = np.random.default_rng(0).choice(len(photos), min(further + 1, len(photos)), replace=False)
        ids = [photos[place].photo_id for place in drawn]
        seconds = [_seconds(partial(library.neighbourhood, photo_id)) for photo_id in ids]
        yield "the first photo", f"{seconds[0]:.1f} s"
        if more := seconds[1:]:
            yield (
                f"each of {len(more)} further photos",
                f"{min(more):.2f} to {max(more):.2f} s, median {np.median(more):.2f} s",
            )
        yield "all photos, after that", f"{_seconds(library.space_statistics):.1f} s"
    unit = 1e6 if sys.platform == "darwin" else 1e3
    yield "memory at most", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.0f} MB"


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
