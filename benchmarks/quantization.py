"""What a model's searches lose in int8, and how much faster it is: fp32, int8 and auto on the same pixels.

    python -m benchmarks.quantization FOLDER [--queries 200] [--model MODEL] [--limit N]

The first folder below FOLDER is a photo's class: P@10 and 20-NN say how often its neighbours share it. Of
--queries photos each change of `evaluate` is looked for among all photos. Vectors are those that are
searched, after the model's projection. Speed is in images a second of computing time on one core, which
other programs disturb less than time on the clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import describe_machine, markdown_table
from vitmae_search.bundled import DEFAULT_MODEL
from vitmae_search.embedding import GuardedEmbedder, PluginHost, Projection, open_embedder
from vitmae_search.evaluation import (
    instance_recall,
    instance_views,
    score_neighbours,
    unit_rows,
)
from vitmae_search.photos import decode, decode_target

_BATCH, _ROUNDS = 128, 7
_VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    "fp32": ("fp32", {"runtime": "openvino"}),
    "auto": ("auto", {"runtime": "openvino"}),
    "int8": ("auto", {"quantization": "int8"}),
}


def main() -> None:
    """Print a table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    chosen = parser.parse_args()
    plugin = PluginHost(packages=False).get("vitmae")
    with ExitStack() as opened:
        embedders = {
            name: opened.enter_context(
                open_embedder(plugin, {"model": chosen.model, **options}, "cpu", precision)
            )
            for name, (precision, options) in _VARIANTS.items()
        }
        report(embedders, chosen.folder, chosen.queries, chosen.limit)


def report(embedders: dict[str, GuardedEmbedder], folder: Path, queries: int, limit: int | None) -> None:
    """Measure, and print the table.

    Args:
        embedders: By name; the first is what the others are compared with.
        folder: Photos in folders that are their classes.
        queries: How many photos are changed and looked for.
        limit: Draw so many of the photos; None takes all.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    order = np.random.default_rng(0).permutation(len(paths))[:limit]
    paths = [paths[number] for number in order]
    labels = np.unique([path.relative_to(folder).parts[0] for path in paths], return_inverse=True)[1]
    first = next(iter(embedders.values()))
    pixels = np.stack([_prepared(first, path) for path in paths])
    changed = list(_changed(first, paths[:queries]))
    print(
        describe_machine("torch", "openvino"),
        f"{len(paths)} photos, {len(set(labels))} classes",
        "",
        sep="\n",
    )
    vectors = {name: _vectors(embedder, pixels) for name, embedder in embedders.items()}
    exact = next(iter(vectors.values()))
    rows = []
    speeds = images_per_core_second(embedders, pixels[:_BATCH])
    for name, embedder in embedders.items():
        scores = score_neighbours(vectors[name], labels)
        ranks = [instance_recall(vectors[name], _vectors(embedder, view)) for view in changed]
        cosines = (exact * vectors[name]).sum(axis=1)
        shares = (
            scores.precision,
            scores.correct,
            [r.recall(1) for r in ranks],
            [r.recall(10) for r in ranks],
        )
        rows.append(
            [
                f"{name} ({embedder.provenance['precision']})",
                *(f"{100 * float(np.mean(share)):.2f}" for share in shares),
                *(f"{value:.5f}" for value in (np.median(cosines), cosines.min())),
                f"{speeds[name]:.0f}",
            ]
        )
    header = [
        "",
        "P@10, %",
        "20-NN, %",
        "recall@1, %",
        "recall@10, %",
        "median cosine",
        "lowest",
        "images/core-s",
    ]
    print(markdown_table(header, rows))


def images_per_core_second(
    embedders: dict[str, GuardedEmbedder], pixels: NDArray[np.uint8]
) -> dict[str, float]:
    """The median over rounds in turns, by name.

    Args:
        embedders: By name.
        pixels: (N, ...) as `prepare` gives them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in embedders}
    for _ in range(_ROUNDS):
        for name, embedder in embedders.items():
            started = time.process_time()
            embedder.embed(pixels)
            seconds[name].append(time.process_time() - started)
    return {name: len(pixels) / float(np.median(taken[1:])) for name, taken in seconds.items()}


def _changed(embedder: GuardedEmbedder, paths: list[Path]) -> Iterator[NDArray[np.uint8]]:
    """The pixels of each change, of all photos: (N, ...) each."""
    views: dict[str, list[Any]] = {}
    for number, path in enumerate(paths):
        image = decode(path.read_bytes()).image
        for name, view in instance_views(image, number):
            views.setdefault(name, []).append(embedder.prepare(view))
    for one in views.values():
        yield np.stack(one)


def _prepared(embedder: GuardedEmbedder, path: Path) -> Any:
    shrink_to = decode_target("scaled", embedder.input_size)
    return embedder.prepare(decode(path.read_bytes(), shrink_to=shrink_to).image)


def _vectors(embedder: GuardedEmbedder, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    features = np.concatenate(
        [embedder.embed(pixels[at : at + _BATCH]) for at in range(0, len(pixels), _BATCH)]
    )
    projection = embedder.projection
    return unit_rows(features if projection is None else Projection.read(projection)(features))


if __name__ == "__main__":
    main()
