"""The tables of the default model's card: how often neighbours share a class on Tiny-ImageNet's val set.

    python -m benchmarks.default_model --data tiny-imagenet-200 [--sweep] [--json]

The folder holds `val/images` and `val/val_annotations.txt` (10,000 photos of 200 classes, which the
default model has never seen). Every row goes through the plugin that a search would use, at its
defaults; `--sweep` adds the poolings and layers that the plugin's defaults were chosen from.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.bundled import bundled
from vitmae_search.embedding import PluginHost, open_embedder
from vitmae_search.evaluation import colour_histogram, interval, raw_pixels, score_neighbours
from vitmae_search.photos import decode, read_photo
from vitmae_search.vitmae import Pooling, ViTImageProcessor, ViTMAEConfig, ViTMAEForPreTraining, pool_layers

BATCH = 250
POOLINGS: tuple[Pooling, ...] = ("cls", "mean", "gem")


@dataclass(frozen=True, slots=True)
class Row:
    """Shares in per cent, with 95 % bootstrap intervals over photos."""

    name: str
    dimension: int
    precision_at_10: float
    precision_interval: tuple[float, float]
    accuracy_20nn: float
    accuracy_interval: tuple[float, float]

    def markdown(self) -> str:
        """A line of the card's table."""
        (p_low, p_high), (a_low, a_high) = self.precision_interval, self.accuracy_interval
        return (
            f"| {self.name} | {self.dimension} | {self.precision_at_10:.2f} ({p_low:.2f}–{p_high:.2f}) "
            f"| {self.accuracy_20nn:.2f} ({a_low:.2f}–{a_high:.2f}) |"
        )


HEADER = "| features | D | P@10, % (95 %) | 20-NN, % (95 %) |\n|---|---|---|---|"


def main() -> None:
    """Print the tables as Markdown, or as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="the folder tiny-imagenet-200")
    parser.add_argument("--model", type=Path, default=bundled("data/models") / "vitmae-tiny-patch8-64")
    parser.add_argument("--limit", type=int, help="use only so many photos, evenly spaced")
    parser.add_argument("--sweep", action="store_true", help="compare poolings and layers, too")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images, labels = read_val(arguments.data / "val", arguments.limit)
    rows = []
    for name, make in methods(arguments.model):
        rows.append(measured(name, make(images), labels))
        print(rows[-1].markdown(), file=sys.stderr)
    swept = [measured(n, v, labels) for n, v in sweep(arguments.model, images)] if arguments.sweep else []
    if arguments.as_json:
        print(json.dumps({"rows": [asdict(r) for r in rows], "sweep": [asdict(r) for r in swept]}))
        return
    for table in filter(None, (rows, swept)):
        print("\n".join([HEADER, *(row.markdown() for row in table)]) + "\n")


def read_val(folder: Path, limit: int | None) -> tuple[list[Image.Image], NDArray[np.int64]]:
    """The photos, RGB, and their classes as integers."""
    lines = (folder / "val_annotations.txt").read_text().splitlines()
    if limit:
        lines = [lines[i] for i in np.unique(np.linspace(0, len(lines) - 1, limit).astype(int))]
    names, words = zip(*(line.split("\t")[:2] for line in lines), strict=True)
    paths = [str(folder / "images" / name) for name in names]
    images = [decode(read_photo(path), path=path).image for path in paths]
    return images, np.unique(words, return_inverse=True)[1].astype(np.int64)


Vectors = NDArray[np.float32]
Method = Callable[[Sequence[Image.Image]], Vectors]


def methods(model: Path) -> Iterator[tuple[str, Method]]:
    """What is compared: the model, the same network untrained, and what needs no training."""
    yield "default model", lambda images: by_plugin("vitmae", {"model": str(model)}, images)
    yield "the same network, untrained", lambda images: untrained(model, images)
    yield "`color_layout`", lambda images: by_plugin("color_layout", {}, images)
    yield "colour histogram, 8³ bins", lambda images: np.stack([colour_histogram(i) for i in images])
    yield "raw pixels, 32 × 32", lambda images: np.stack([raw_pixels(i) for i in images])
    yield "raw grey pixels, 32 × 32", lambda images: np.stack([raw_pixels(i, grey=True) for i in images])


def by_plugin(name: str, options: Mapping[str, object], images: Sequence[Image.Image]) -> Vectors:
    """The vectors that a library would hold."""
    embedder = open_embedder(PluginHost().get(name), options)
    started = time.perf_counter()
    batches = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
    vectors = [embedder.embed(np.stack([embedder.prepare(image) for image in batch])) for batch in batches]
    seconds = time.perf_counter() - started
    print(f"{name}: {len(images) / seconds:.0f} photos/s", file=sys.stderr)
    embedder.close()
    return np.concatenate(vectors)


def untrained(model: Path, images: Sequence[Image.Image]) -> Vectors:
    """The default model's architecture with the weights that a training would begin with."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        config = ViTMAEConfig.from_json_file(model / "config.json")
        ViTMAEForPreTraining(config).save_pretrained(folder)
        ViTImageProcessor.from_pretrained(model).save_pretrained(folder)
        return by_plugin("vitmae", {"model": folder}, images)


def sweep(model: Path, images: Sequence[Image.Image]) -> Iterator[tuple[str, Vectors]]:
    """Each pooling of each of the later layers, and of several together, from one pass over the photos."""
    whole = ViTMAEForPreTraining.from_pretrained(model)
    processor = ViTImageProcessor.from_pretrained(model)
    depth = whole.config.num_hidden_layers
    single = [(layer,) for layer in range(depth // 2, depth + 1)]
    several = [(depth // 2, depth), (depth - 2, depth - 1, depth), (depth // 2, 3 * depth // 4, depth)]
    choices = [(pooling, layers) for pooling in POOLINGS for layers in single + several]
    pooled: dict[tuple[Pooling, tuple[int, ...]], list[Vectors]] = {choice: [] for choice in choices}
    needed = sorted({layer for layers in single for layer in layers})
    for start in range(0, len(images), BATCH):
        pixels = processor(list(images[start : start + BATCH]), return_tensors="pt").pixel_values
        with torch.inference_mode():
            states = dict(zip(needed, whole.vit.encode(pixels, needed), strict=True))
            for (pooling, layers), vectors in pooled.items():
                vectors.append(pool_layers([states[layer] for layer in layers], pooling).numpy())
    for (pooling, layers), vectors in pooled.items():
        yield f"{pooling}, layers {', '.join(map(str, layers))}", np.concatenate(vectors)


def measured(name: str, vectors: Vectors, labels: NDArray[np.int64]) -> Row:
    """Score vectors of any length against the classes."""
    scores = score_neighbours(vectors, labels)
    low, high = interval(100 * scores.precision)
    precision = round(low, 2), round(high, 2)
    low, high = interval(100 * scores.correct)
    return Row(
        name=name,
        dimension=vectors.shape[1],
        precision_at_10=round(100 * scores.precision_at_k, 2),
        precision_interval=precision,
        accuracy_20nn=round(100 * scores.accuracy, 2),
        accuracy_interval=(round(low, 2), round(high, 2)),
    )


if __name__ == "__main__":
    main()
