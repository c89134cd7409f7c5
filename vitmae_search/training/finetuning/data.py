"""Labelled photos as arrays: packed pixels, class numbers, and the training and validation rows."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.errors import TrainingError, display_path
from vitmae_search.photos import LabelledFiles, labels_of_csv
from vitmae_search.training.data.packed_photos import OnPacked, PackedPhotos, pack_files
from vitmae_search.training.finetuning.labels import (
    check_known_labels,
    class_names,
    labels_of_folders,
    train_val_split,
)


@dataclass(frozen=True, slots=True)
class DatasetPaths:
    """Where photos and labels are, as absolute paths.

    Attributes:
        folder: The photos to train on; without `labels`, in a folder for each class.
        labels: A CSV file of labels.
        val: The photos to validate on, in a folder for each class; None to split off a share of `folder`.
    """

    folder: str
    labels: str | None = None
    val: str | None = None


@dataclass(frozen=True, slots=True)
class LabelledPhotos:
    """Decoded photos with their classes.

    Attributes:
        images: (N, side, side, 3) uint8, each photo resized whole.
        labels: (N,) int64, class numbers.
        names: The classes' names.
        training: Rows to train on.
        validation: Rows to validate on.
        unlabelled: Photos without a class, which are left out.
        failures: (path, reason) of photos that could not be decoded.
        signature: Digest of the photos, their labels and the split.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    unlabelled: int
    failures: tuple[tuple[str, str], ...]
    signature: str

    def not_validated(self) -> list[str]:
        """The classes without a photo to validate on, which the accuracy says nothing about."""
        validated = set(self.labels[self.validation].tolist())
        return [name for number, name in enumerate(self.names) if number not in validated]


def load_labelled_photos(
    paths: DatasetPaths,
    cache: Path,
    *,
    side: int,
    resample: Image.Resampling,
    val_share: float,
    seed: int,
    on_packed: OnPacked | None = None,
) -> LabelledPhotos:
    """Find, decode and split labelled photos. Those that cannot be decoded are left out before the split.

    Args:
        paths: Where photos and labels are.
        cache: Folder for the packed photos.
        side: Height and width of the decoded photos, in pixels.
        resample: Filter that resizes them.
        val_share: Share of each class to validate on, where there is no folder for validation.
        seed: Determines the split.
        on_packed: Called while photos are packed.

    Raises:
        LabelsError: The CSV file is damaged or names photos that are not there.
        TrainingError: Photos lie in no class's folder, there are fewer than two classes, or there is nothing
            to validate on.
    """
    train_files, val_files = _find_files(paths)
    packed = pack_files(
        train_files.files + val_files.files,
        cache,
        side=side,
        source=paths.folder,
        whole_resample=resample,
        on_progress=on_packed,
    )
    texts, train_count = _labels_of_packed(train_files, val_files, packed)
    names = class_names(texts[:train_count])
    check_known_labels(texts[train_count:], names, paths.val or paths.folder)
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[text] for text in texts], np.int64)
    if paths.val is None:
        training, validation = train_val_split(labels, val_share, seed)
    else:
        training, validation = np.arange(train_count), np.arange(train_count, len(texts))
        if not len(validation):
            raise TrainingError(f"no photo could be read under {display_path(paths.val)}")
    return LabelledPhotos(
        packed.images,
        labels,
        names,
        training,
        validation,
        train_files.unlabelled + val_files.unlabelled,
        packed.failures,
        _signature(packed.signature, texts, validation),
    )


def _find_files(paths: DatasetPaths) -> tuple[LabelledFiles, LabelledFiles]:
    """The files to train on, and those of the folder for validation, if there is one."""
    if paths.labels is None:
        train_files = labels_of_folders(paths.folder)
    else:
        train_files = labels_of_csv(paths.labels, paths.folder)
    if paths.val is None:
        return train_files, LabelledFiles((), ())
    val_files = labels_of_folders(paths.val)
    _check_disjoint(train_files, val_files, paths.val)
    return train_files, val_files


def _labels_of_packed(
    train_files: LabelledFiles, val_files: LabelledFiles, packed: PackedPhotos
) -> tuple[list[str], int]:
    """The labels of the packed rows, and how many of them are to train on."""
    failed = {path for path, _ in packed.failures}
    parts = [
        [text for stamp, text in zip(part.files, part.labels, strict=True) if stamp.path not in failed]
        for part in (train_files, val_files)
    ]
    if not parts[0]:
        raise TrainingError("none of the photos to train on could be read")
    return parts[0] + parts[1], len(parts[0])


def _check_disjoint(train_files: LabelledFiles, val_files: LabelledFiles, folder: str) -> None:
    shared = {stamp.path for stamp in train_files.files} & {stamp.path for stamp in val_files.files}
    if shared:
        raise TrainingError(
            f"{display_path(min(shared))} would be trained on and held out: {display_path(folder)} must not "
            "share photos with the folder to train on"
        )


def _signature(packed: str, texts: list[str], validation: NDArray[np.int64]) -> str:
    digest = hashlib.sha256(packed.encode())
    digest.update("\0".join(texts).encode("utf-8", "surrogatepass"))
    digest.update(validation.tobytes())
    return digest.hexdigest()


def absolute_path(path: str | os.PathLike[str] | None) -> str | None:
    """A path as run.json has it."""
    return None if path is None else os.path.abspath(os.fspath(path))
