"""The labels of a folder of photos, as classes, and the split. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import TrainingError, display_path
from vitmae_search.photos import LabelledFiles, folder_label
from vitmae_search.training.data.packed_photos import list_photos

_TOLD = 3  # bad rows that an error spells out


def labels_of_folders(folder: str | os.PathLike[str]) -> LabelledFiles:
    """Every photo under `folder`, labelled with the name of the first folder below it.

    Photos that lie in `folder` itself have no label, and are only counted. Raises `TrainingError` where
    there is no photo, or none in a folder of its own.
    """
    root = os.path.abspath(os.fspath(folder))
    found = list_photos(root)
    named = [(stamp, folder_label(stamp.path, root)) for stamp in found]
    labelled = [(stamp, label) for stamp, label in named if label is not None]
    if not labelled:
        raise TrainingError(
            f"the photos of {display_path(folder)} lie in no folders of their own, whose names would be "
            "their classes: sort them into folders, or give a CSV file with --labels"
        )
    files, labels = zip(*labelled, strict=True)
    return LabelledFiles(files, labels, len(found) - len(labelled))


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
