"""Which features search best: layers × poolings × views × whitening, by whether neighbours share classes.

    python -m benchmarks.embedding_options --data FOLDER [--labels FILE.csv] [--model DIR] [--limit N]
                                           [--layers 8 --layers 8,10,12] [--pooling cls+moments] [--json]

The class of a photo is the first folder below FOLDER, or is read from a CSV file; for `tiny-imagenet-200`
from the validation set's list. Each row is one choice of the plugin's options. The columns are no whitening,
and whitening with some shrinkages, fitted without labels on the same photos.

Nothing is embedded twice: the plugin scales each pooling of each layer to unit length before it concatenates
them, so the features of every choice are slices of one long vector. There is one pass for each choice of
views.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.evaluate_bundled_model import write_labels
from vitmae_search.bundled import DEFAULT_MODEL
from vitmae_search.embedding import GuardedEmbedder, PluginHost, Projection, open_embedder
from vitmae_search.evaluation import (
    Classes,
    Figure,
    LabelledPhotos,
    class_figures,
    find_labelled_photos,
    unit_rows,
)
from vitmae_search.library.encode_folder import Method, encode
from vitmae_search.photos import decode_target
from vitmae_search.training.adaptation.whitening import fit_whitening

SINGLE_POOLINGS = ("cls", "mean", "gem", "moments")
POOLINGS = (*SINGLE_POOLINGS, "cls+mean", "cls+moments")
VIEWS = ("1", "flip")
SHRINKAGES = (None, 0.03, 0.1, 0.3)

Layers = tuple[int, ...]
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FeatureOptions:
    """Options of the plugin. Layers are numbered from 0."""

    layers: Layers
    pooling: str
    views: str

    def markdown(self) -> str:
        """Cells of a table row."""
        return f"{', '.join(map(str, self.layers))} | {self.pooling} | {self.views}"


@dataclass(frozen=True, slots=True)
class Result:
    """Figures (0 to 1) for one choice, whitened with `shrinkage`, or not whitened if it is None."""

    choice: FeatureOptions
    dimension: int
    shrinkage: float | None
    precision: Figure
    accuracy: Figure


def main() -> None:
    """Print the table as Markdown, or one JSON object."""
    chosen = parse_arguments()
    photos = load_photos(chosen.data, chosen.labels)
    photos = photos if chosen.limit is None else photos.drawn(chosen.limit, seed=0)
    with ExitStack() as closing:
        opened = [closing.enter_context(open_with_all_features(chosen.model, views)) for views in VIEWS]
        depth = opened[0].identity["config"]["num_hidden_layers"]
        shrink_to = decode_target("scaled", opened[0].input_size)
        methods = [Method.of_embedder(views, one) for views, one in zip(VIEWS, opened, strict=True)]
        encoded = encode(photos.files, methods, shrink_to=shrink_to, on_done=print_progress)
    classes = Classes.of([photos.labels[row] for row in encoded.rows])
    layers = [tuple(map(int, text.split(","))) for text in chosen.layers] or default_layers(depth)
    results: list[Result] = []
    for views, vectors in zip(VIEWS, encoded.vectors, strict=True):
        parts = FeatureSlices(vectors[classes.rows], depth)
        for one, pooling in product(layers, chosen.pooling or POOLINGS):
            results += evaluate_options(FeatureOptions(one, pooling, views), parts, classes.numbers)
            print(f"{results[-1].choice.markdown()}: measured", file=sys.stderr)
    if chosen.as_json:
        print(json.dumps({"photos": len(classes.rows), "results": [asdict(one) for one in results]}))
    else:
        print("\n".join(table(results, len(classes.rows))))


def parse_arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--labels", type=Path, metavar="FILE.csv")
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="DIR")
    parser.add_argument("--limit", type=int, metavar="N", help="use only so many photos")
    parser.add_argument("--layers", action="append", default=[], help="layers taken together; repeatable")
    parser.add_argument("--pooling", action="append", default=[], help="repeatable")
    parser.add_argument("--json", action="store_true", dest="as_json")
    return parser.parse_args()


def load_photos(data: Path, labels: Path | None) -> LabelledPhotos:
    """The photos and their classes.

    Args:
        data: The folder.
        labels: A CSV file, or None for the first folder, or Tiny-ImageNet's list if there is one.
    """
    annotations = data / "val" / "val_annotations.txt"
    if labels is not None or not annotations.is_file():
        return find_labelled_photos(data, labels)
    with tempfile.TemporaryDirectory() as folder:
        write_labels(annotations, Path(folder) / "labels.csv")
        return find_labelled_photos(data / "val", Path(folder) / "labels.csv")


def open_with_all_features(model: str, views: str) -> GuardedEmbedder:
    """Open the plugin with every pooling of every layer of the second half.

    Args:
        model: As `--model` takes it.
        views: As `-o views` takes it.
    """
    plugin = PluginHost().get("vitmae")
    with open_embedder(plugin, {"model": model}, "cpu") as one:
        depth = one.identity["config"]["num_hidden_layers"]
    layers = ",".join(map(str, range(depth // 2, depth + 1)))
    options = {"model": model, "layers": layers, "pooling": "+".join(SINGLE_POOLINGS), "views": views}
    return open_embedder(plugin, options)


def print_progress(done: int, failed: int) -> None:
    """Print the progress every 1,000 photos.

    Args:
        done: Photos so far.
        failed: How many of them could not be read.
    """
    if done % 1000 == 0:
        print(f"{done} photos, {failed} failed", file=sys.stderr)


def default_layers(depth: int) -> list[Layers]:
    """Some of the later layers alone, and two sets of three, near and far apart."""
    singles = sorted({depth // 2, 2 * depth // 3, 5 * depth // 6, depth - 1, depth})
    several = [(depth - 2, depth - 1, depth), (depth // 2, 3 * depth // 4, depth)]
    return [*((layer,) for layer in singles), *several]


class FeatureSlices:
    """Vectors of any choice of options, as slices of those of `open_with_all_features`."""

    def __init__(self, vectors: Vectors, depth: int) -> None:
        self._vectors, self._first = vectors, depth // 2
        widths = [2 if part == "moments" else 1 for part in SINGLE_POOLINGS]
        self._width = vectors.shape[1] // (sum(widths) * (depth - self._first + 1))
        starts = np.cumsum([0, *widths]) * self._width
        self._places = {part: slice(*starts[i : i + 2]) for i, part in enumerate(SINGLE_POOLINGS)}
        self._stride = int(starts[-1])

    def of(self, choice: FeatureOptions) -> Vectors:
        """The vectors that the plugin gives with these options: (N, D), rows of unit length."""
        columns = []
        for layer in choice.layers:
            start = (layer - self._first) * self._stride
            if not 0 <= start < self._vectors.shape[1]:
                raise SystemExit(f"there is no layer {layer} in the second half of this model")
            whole = self._vectors[:, start : start + self._stride]
            columns += [whole[:, self._places[part]] for part in choice.pooling.split("+")]
        return unit_rows(np.concatenate(columns, axis=1))


def evaluate_options(
    choice: FeatureOptions, parts: FeatureSlices, labels: NDArray[np.int64]
) -> Iterator[Result]:
    """One result for each of `SHRINKAGES`.

    Args:
        choice: The options.
        parts: The features.
        labels: (N,) class numbers.
    """
    features = parts.of(choice)
    for shrinkage in SHRINKAGES:
        vectors = features if shrinkage is None else whitened(features, shrinkage)
        figures = class_figures(vectors, labels)
        yield Result(choice, vectors.shape[1], shrinkage, figures["P@10"], figures["20-NN"])


def whitened(features: Vectors, shrinkage: float) -> Vectors:
    """Whitened unit vectors, as a library searches them.

    Args:
        features: (N, D).
        shrinkage: Of the eigenvalues towards their mean, 0 to 1.
    """
    weight, bias = fit_whitening(features, shrinkage=shrinkage)
    return Projection([weight], [bias], "whitening")(features)


def table(results: Sequence[Result], photos: int) -> Iterator[str]:
    """Lines of a Markdown table with a row for each choice; the best figure is bold.

    Args:
        results: One for each choice and shrinkage, in order.
        photos: How many were measured.
    """
    best = max(results, key=lambda one: one.accuracy.value)
    named = [
        "whitened, " + str(shrinkage) if shrinkage is not None else "as they are" for shrinkage in SHRINKAGES
    ]
    yield (
        f"P@10 / 20-NN in per cent, {photos} photos; 95 % interval of the best by 20-NN, in bold: "
        + " / ".join(f"{100 * one.low:.2f}–{100 * one.high:.2f}" for one in (best.precision, best.accuracy))
    )
    yield ""
    yield f"| layers | pooling | views | D | {' | '.join(named)} |"
    yield "|" + "---|" * (4 + len(named))
    for start in range(0, len(results), len(SHRINKAGES)):
        row = results[start : start + len(SHRINKAGES)]
        cells = [f"{100 * one.precision.value:.2f} / {100 * one.accuracy.value:.2f}" for one in row]
        cells = [f"**{cell}**" if one is best else cell for one, cell in zip(row, cells, strict=True)]
        yield f"| {row[0].choice.markdown()} | {row[0].dimension} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
