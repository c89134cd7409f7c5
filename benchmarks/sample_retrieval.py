"""How well embedders find other views of a photo, on the demo's samples, where the right answer is known.

    python -m benchmarks.sample_retrieval

Each sample (fifteen photos in ten views: crops, tilt, mirror, tone, recompression) is a query among the
others. The other views of the same photo are the right answers.
"""

from __future__ import annotations

import csv
import tempfile
from contextlib import ExitStack
from pathlib import Path

from vitmae_search.embedding import PluginHost, open_embedder
from vitmae_search.library import write_samples
from vitmae_search.library.evaluation import Candidate, evaluate_folder


def main() -> None:
    """Print the table as Markdown."""
    host = PluginHost()
    with ExitStack() as closing, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_samples(folder)
        candidates = []
        for plugin in ("vitmae", "color_layout"):
            embedder = closing.enter_context(open_embedder(host.get(plugin)))
            candidates.append(Candidate.of(embedder, embedder.own_projection()))
        found = evaluate_folder(folder, candidates, labels=labels(folder), instances=0, host=host)
        print(found.markdown())


def labels(folder: Path) -> Path:
    """Write a CSV file that labels each sample with its photo."""
    table = folder / "labels.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label"))
        writer.writerows((path.name, path.name.partition("-")[0]) for path in folder.glob("*.jpg"))
    return table


if __name__ == "__main__":
    main()
