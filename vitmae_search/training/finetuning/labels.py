"""Which photo has which label: a folder's first folders, or a CSV file; and the split. Torch-free."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import TrainingError, UnreadablePhoto, display_path
from vitmae_search.photos import is_photo_name, stamp_file
from vitmae_search.records import Stamp
from vitmae_search.training.packed import list_photos

_TOLD = 3  # bad rows that an error spells out


@dataclass(frozen=True, slots=True)
class LabelledFiles:
    """Files and their labels, row by row, sorted by path. `unlabelled` counts photos that no class has."""

    files: tuple[Stamp, ...]
    labels: tuple[str, ...]
    unlabelled: int = 0

    def __len__(self) -> int:
        return len(self.files)


def labels_of_folders(folder: str | os.PathLike[str]) -> LabelledFiles:
    """Every photo under `folder`, labelled with the name of the first folder below it.

    Photos that lie in `folder` itself have no label, and are only counted. Raises `TrainingError` where
    there is no photo, or none in a folder of its own.
    """
    root = os.path.abspath(os.fspath(folder))
    found = list_photos(root)
    inside = [(stamp, os.path.relpath(stamp.path, root).split(os.sep)) for stamp in found]
    labelled = [(stamp, display_path(parts[0])) for stamp, parts in inside if len(parts) > 1]
    if not labelled:
        raise TrainingError(
            f"the photos of {display_path(folder)} lie in no folders of their own, whose names would be "
            "their classes: sort them into folders, or give a CSV file with --labels"
        )
    files, labels = zip(*labelled, strict=True)
    return LabelledFiles(files, labels, len(found) - len(labelled))


def labels_of_csv(table: str | os.PathLike[str], folder: str | os.PathLike[str]) -> LabelledFiles:
    """The photos that a CSV file lists, with the columns path (relative to `folder`) and label.

    UTF-8, with a header; other columns are left alone. Photos under `folder` that it does not list take
    no part. Raises `TrainingError` that names the lines which are wrong and says why: a column is missing
    or empty, a path leads out of the folder, is no photo, is not there, or comes twice.
    """
    root, where = os.path.abspath(os.fspath(folder)), display_path(table)
    seen: dict[str, int] = {}
    rows: list[tuple[Stamp, str]] = []
    wrong: list[str] = []
    for line, row in _rows(Path(table)):
        stamp = _stamp(row, root)
        if isinstance(stamp, str):
            wrong.append(f"line {line}: {stamp}")
        elif stamp.path in seen:
            wrong.append(f"line {line}: {row['path']} is also on line {seen[stamp.path]}")
        else:
            seen[stamp.path] = line
            rows.append((stamp, row["label"].strip()))
    if wrong:
        rest = f"; and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
        raise TrainingError(f"{where} has {len(wrong)} bad rows: {'; '.join(wrong[:_TOLD])}{rest}")
    if not rows:
        raise TrainingError(f"{where} lists no photo")
    files, labels = zip(*sorted(rows, key=lambda pair: pair[0].path), strict=True)
    return LabelledFiles(files, labels)


def class_names(labels: Sequence[str]) -> tuple[str, ...]:
    """Distinct labels, sorted: class i is the i-th. Raises `TrainingError` for fewer than two."""
    names = tuple(sorted(set(labels)))
    if len(names) < 2:
        raise TrainingError(f"there is one class alone, {names[0]!r}: a classifier needs two or more")
    return names


def split(labels: NDArray[np.int64], share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and rows held out, each sorted: `share` of every class, drawn by `seed`.

    A class of two photos or more gives at least one and keeps at least one; a class of one photo is
    trained on and never held out. Raises `TrainingError` where nothing can be held out.
    """
    held: list[NDArray[np.int64]] = []
    for number in np.unique(labels):
        rows = np.flatnonzero(labels == number)
        count = min(max(round(len(rows) * share), 1), len(rows) - 1)
        held.append(np.random.default_rng((seed, int(number))).permutation(rows)[:count])
    validation = np.sort(np.concatenate(held))
    if not len(validation):
        raise TrainingError(
            "every class has one photo alone, so none can be held out: add photos, or give --val"
        )
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def check_known(labels: Sequence[str], names: Sequence[str], folder: str) -> None:
    """Raises `TrainingError` for labels of the validation that the training does not have."""
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise TrainingError(
            f"{display_path(folder)} has classes without a photo to train on: {', '.join(unknown[:_TOLD])}"
        )


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and rows, with the values of path and label as text, "" where they are missing."""
    where = display_path(table)
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = Counter(reader.fieldnames or ())
            if columns["path"] != 1 or columns["label"] != 1:
                found = ", ".join(columns) or "none"
                raise TrainingError(f"{where} needs the columns path and label, once each; it has {found}")
            for row in reader:
                yield reader.line_num, {name: row[name] or "" for name in ("path", "label")}
    except OSError as error:
        raise TrainingError(f"{where} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise TrainingError(f"{where} is not UTF-8") from error
    except csv.Error as error:
        raise TrainingError(f"{where}, line {reader.reader.line_num}: {error}") from error


def _stamp(row: dict[str, str], root: str) -> Stamp | str:
    """The stamp of a row's photo, or what is wrong with the row."""
    path, label = row["path"], row["label"].strip()
    if not path or not label:
        return "no path" if not path else "no label"
    joined = os.path.normpath(os.path.join(root, path))
    if os.path.isabs(path) or not joined.startswith(os.path.join(root, "")):
        return f"{display_path(path)} is not a path under the folder"
    if not is_photo_name(joined):
        return f"{display_path(path)} is not a photo"
    try:
        return stamp_file(joined)
    except UnreadablePhoto as error:
        return f"{display_path(path)}: {error.reason}"
