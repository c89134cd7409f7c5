"""How well an embedder finds the views of a photo: the demo's samples, where the right answer is known.

    python -m benchmarks.sample_views

Each of the samples (fifteen photos in ten views: crops, tilt, mirror, tone, recompression) is a query
against the others. P@1 is how often the first hit is a view of the same photo; R@9 is the share of its
nine other views among the first nine hits. Copies, which grey pictures' grey views are, count as found.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from vitmae_search.library import Library, write_samples

VIEWS_BESIDE = 9


def main() -> None:
    """Print the table as Markdown."""
    print("| embedder | P@1, % | R@9, % |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_samples(folder / "photos")
        for embedder in ("vitmae", "color_layout"):
            first, recall = measure(folder, embedder)
            print(f"| {embedder} | {100 * first:.1f} | {100 * recall:.1f} |")


def measure(folder: Path, embedder: str) -> tuple[float, float]:
    """P@1 and R@9 over all samples, 0 to 1."""
    firsts, recalls = [], []
    with Library.open(folder / embedder, embedder=embedder) as library:
        library.index(folder / "photos")
        for photo in library.photos():
            hits = library.search(photo.path, k=VIEWS_BESIDE + 1).hits
            paths = [path for hit in hits for path in (hit.photo.path, *hit.copies) if path != photo.path]
            right = [_subject(path) == _subject(photo.path) for path in paths[:VIEWS_BESIDE]]
            firsts.append(right[0])
            recalls.append(sum(right) / VIEWS_BESIDE)
    return float(np.mean(firsts)), float(np.mean(recalls))


def _subject(path: str) -> str:
    return Path(path).name.partition("-")[0]


if __name__ == "__main__":
    main()
