"""The photos that are measured on, and the classes that they belong to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vitmae_search.address import absolute_path
from vitmae_search.errors import EvaluationError, display_path
from vitmae_search.photos import folder_label, labels_of_csv, scan
from vitmae_search.records import ScanProblem, Stamp

_VOTES = 20  # neighbours that the measures use, except mAP@100


@dataclass(frozen=True, slots=True)
class LabelledPhotos:
    """Files with the label of each, or None; `problems` are folders that could not be read."""

    files: tuple[Stamp, ...]
    labels: tuple[str | None, ...]
    problems: tuple[ScanProblem, ...] = ()

    def drawn(self, count: int, seed: int) -> LabelledPhotos:
        """A random sample.

        Args:
            count: How many files, at most.
            seed: What is drawn.
        """
        rows = draw(len(self.files), count, seed)
        files = tuple(self.files[row] for row in rows)
        return replace(self, files=files, labels=tuple(self.labels[row] for row in rows))


def find_labelled_photos(
    folder: str | os.PathLike[str], table: str | os.PathLike[str] | None = None
) -> LabelledPhotos:
    """The photos under a folder with their labels, sorted by path.

    Those without a label come last, so that of copies the one with a label counts.

    Args:
        folder: The photos; the first folder below it is a photo's label.
        table: A CSV file of labels in place of folders (see `photos.labels_of_csv`); only the photos that it
            lists are taken.

    Raises:
        LabelsError: The CSV file is wrong.
        EvaluationError: There are no photos.
    """
    root = absolute_path(folder)
    if table is not None:
        listed = labels_of_csv(os.path.expanduser(os.fspath(table)), root)
        return LabelledPhotos(listed.files, listed.labels)
    problems: list[ScanProblem] = []
    files = list(scan(root, on_problem=problems.append))
    if not files:
        reason = f" ({problems[0].reason})" if problems else ""
        raise EvaluationError(f"there are no photos under {display_path(folder)}{reason}")
    found = [(folder_label(file.path, root), file) for file in files]
    found.sort(key=lambda one: (one[0] is None, one[1].path))
    return LabelledPhotos(
        tuple(file for _, file in found), tuple(label for label, _ in found), tuple(problems)
    )


def draw(count: int, wanted: int, seed: int) -> list[int]:
    """A random sample of the numbers below `count`, rising.

    Args:
        count: How many numbers there are.
        wanted: How many to draw, at most.
        seed: What is drawn.
    """
    drawn: list[int] = sorted(np.random.default_rng(seed).permutation(count)[:wanted].tolist())
    return drawn


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """`rows` (M,) are the photos with a label, `numbers` (M,) their classes; `sizes` (C,) counts each."""

    rows: NDArray[np.int64]
    numbers: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, labels: Sequence[str | None]) -> Classes:
        """The classes of photos with these labels."""
        named = [(row, label) for row, label in enumerate(labels) if label is not None]
        rows = np.array([row for row, _ in named], np.int64)
        names, numbers = np.unique([label for _, label in named], return_inverse=True)
        return cls(rows, numbers.astype(np.int64), np.bincount(numbers, minlength=len(names)))

    @property
    def queries(self) -> int:
        """How many photos have another one of their class; 0 if there is a single class."""
        return int(self.sizes[self.sizes > 1].sum()) if len(self.sizes) > 1 else 0

    def notes(self) -> Iterator[str]:
        """Sentences about what could not be measured, or not fully."""
        if not len(self.sizes):
            yield "There are no classes: the photos lie in no folders of their own, and no CSV file has any."
        elif not self.queries:
            yield "Classes are not measured: that takes two classes, and two photos of one of them."
        elif len(self.rows) <= _VOTES:
            yield f"Where more neighbours are meant, the {len(self.rows) - 1} other photos are used."
        alone = int((self.sizes == 1).sum())
        if alone and self.queries:
            yield f"{alone} photos are alone in their class: they can be found, but are no queries."
