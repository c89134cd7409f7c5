"""Labels from folder names, the classes, and the training-validation split, without importing torch."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import TrainingError, display_path
from vitmae_search.photos import LabelledFiles, folder_label
from vitmae_search.training.data.packed_photos import list_photos

_MAX_LISTED = 3
"""Unknown labels that an error message lists."""


def labels_of_folders(folder: str | os.PathLike[str]) -> LabelledFiles:
    """Label every photo under `folder` with the name of the first folder below it.

    Photos directly in `folder` have no label and are only counted.

    Raises:
        TrainingError: There are no photos, or none in a subfolder.
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
    """The distinct labels, sorted; class i is the i-th. Raises `TrainingError` for fewer than two."""
    names = tuple(sorted(set(labels)))
    if len(names) < 2:
        raise TrainingError(f"there is one class alone, {names[0]!r}: a classifier needs two or more")
    return names


def train_val_split(
    labels: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows into training and validation, stratified by class.

    A class of two photos or more has at least one in each part; a class of one photo is trained on.

    Args:
        labels: (N,), class numbers.
        share: Of each class to validate on, in (0, 1).
        seed: Determines the split.

    Returns:
        The rows to train on and those to validate on, both sorted.

    Raises:
        TrainingError: Every class has one photo only.
    """
    parts: list[NDArray[np.int64]] = []
    for number in np.unique(labels):
        rows = np.flatnonzero(labels == number)
        count = min(max(round(len(rows) * share), 1), len(rows) - 1)
        parts.append(np.random.default_rng((seed, int(number))).permutation(rows)[:count])
    validation = np.sort(np.concatenate(parts))
    if not len(validation):
        raise TrainingError(
            "every class has one photo alone, so none can be held out: add photos, or give --val"
        )
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def check_known_labels(labels: Sequence[str], names: Sequence[str], folder: str) -> None:
    """Check that no validation label is missing from the training labels.

    Args:
        labels: The labels of the photos to validate on.
        names: The classes to train on.
        folder: The folder for validation, for the error message.

    Raises:
        TrainingError: A label is not among `names`.
    """
    unknown = sorted(set(labels) - set(names))
    if unknown:
        listed = ", ".join(unknown[:_MAX_LISTED])
        raise TrainingError(f"{display_path(folder)} has classes without a photo to train on: {listed}")
