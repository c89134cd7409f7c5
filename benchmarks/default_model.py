"""The tables of the default model's card: Tiny-ImageNet's validation set, which it has never seen.

    python -m benchmarks.default_model --data tiny-imagenet-200 [--sweep] [--output FILE.md] [--plot FILE.png]

The folder holds `val/images` and `val/val_annotations.txt`, 10,000 photos of 200 classes; this puts their
classes into the CSV file that `vitmae-search evaluate --labels` takes, and measures as that command does.
`--sweep` adds the poolings and layers that the plugin's defaults were chosen from, by classes alone.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path

from vitmae_search.embedding import PluginHost, open_embedder
from vitmae_search.evaluation import Evaluation, markdown, plot
from vitmae_search.library.evaluating import Candidate, evaluate_folder

DEFAULT = "vitmae-tiny-patch8-64"
POOLINGS = ("cls", "mean", "gem")
LAYERS = ("6", "8", "10", "12", "10,11,12", "6,9,12")


def main() -> None:
    """Print the tables as Markdown, or write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="the folder tiny-imagenet-200")
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--limit", type=int, help="use only so many photos")
    parser.add_argument("--sweep", action="store_true", help="compare poolings and layers, too")
    parser.add_argument("--output", type=Path, metavar="FILE.md")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    chosen = parser.parse_args()
    found = measured(chosen.data / "val", [{"model": chosen.model}], chosen.limit, instances=1000)
    text = markdown(found)
    if chosen.sweep:
        choices = [
            {"model": chosen.model, "pooling": pooling, "layers": layers}
            for pooling, layers in product(POOLINGS, LAYERS)
        ]
        text += "\n" + markdown(measured(chosen.data / "val", choices, chosen.limit, instances=0))
    if chosen.output:
        chosen.output.write_text(text, encoding="utf-8")
    else:
        print(text)
    if chosen.plot:
        plot(found, chosen.plot)


def measured(
    val: Path, choices: Sequence[dict[str, str]], limit: int | None, *, instances: int
) -> Evaluation:
    """The evaluation of the plugin with each set of options, from one pass over the photos."""
    host = PluginHost()
    with ExitStack() as closing, tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "labels.csv"
        write_labels(val / "val_annotations.txt", table)
        candidates = []
        for options in choices:
            embedder = closing.enter_context(open_embedder(host.get("vitmae"), options))
            name = ", ".join([embedder.model, *(f"{k} {v}" for k, v in options.items() if k != "model")])
            candidates.append(Candidate(name, embedder, embedder.own_projection()))
        return evaluate_folder(val, candidates, labels=table, instances=instances, limit=limit, host=host)


def write_labels(annotations: Path, table: Path) -> None:
    """From the data set's own list, tab-separated, to columns path and label."""
    lines = [line.split("\t")[:2] for line in annotations.read_text().splitlines()]
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label"))
        writer.writerows((f"images/{name}", word) for name, word in lines)


if __name__ == "__main__":
    main()
