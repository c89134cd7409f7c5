"""The tables of the default model's card, on Tiny-ImageNet's validation set, which it was not trained on.

    python -m benchmarks.evaluate_bundled_model --data tiny-imagenet-200 [options of `vitmae-search evaluate`]

The folder holds `val/images` and `val/val_annotations.txt`: 10,000 photos of 200 classes. The classes are
written to a CSV file for `vitmae-search evaluate --labels`, and that command does the rest.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
from pathlib import Path

from vitmae_search.bundled import DEFAULT_MODEL
from vitmae_search.cli.main import run


def main() -> None:
    """Evaluate, and exit with the command's status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder tiny-imagenet-200")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    chosen, options = parser.parse_known_args()
    val = chosen.data / "val"
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "labels.csv"
        write_labels(val / "val_annotations.txt", table)
        words = ["evaluate", os.fspath(val), "--labels", os.fspath(table), "--model", chosen.model]
        sys.exit(run([*words, *options]))


def write_labels(annotations: Path, table: Path) -> None:
    """Convert the data set's list of classes to a CSV file.

    Args:
        annotations: Tiny-ImageNet's tab-separated list.
        table: The CSV file to write, with the columns path and label.
    """
    lines = [line.split("\t")[:2] for line in annotations.read_text().splitlines()]
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label"))
        writer.writerows((f"images/{name}", word) for name, word in lines)


if __name__ == "__main__":
    main()
