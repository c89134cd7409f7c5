"""Labelled photos as arrays: packed pixels, class numbers, and what is trained on and held out."""

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
from vitmae_search.training.finetuning.labels import check_known, class_names, labels_of_folders, split


@dataclass(frozen=True, slots=True)
class Sources:
    """Where photos and labels come from, as absolute paths; `labels` is a CSV, `val` a folder of classes."""

    folder: str
    labels: str | None = None
    val: str | None = None


@dataclass(frozen=True, slots=True)
class LabelledPhotos:
    """`images` (N, side, side, 3) uint8, each photo resized whole; `labels` (N,) int64, the class numbers.

    `names` are the classes; `training` and `validation` are rows. `unlabelled` counts photos that no class
    has, `failures` are (path, reason). `signature` stands for all of it.
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
        """Classes of which no photo is held out, so that no accuracy speaks for them."""
        there = set(self.labels[self.validation].tolist())
        return [name for number, name in enumerate(self.names) if number not in there]


def gather(
    sources: Sources,
    cache: Path,
    *,
    side: int,
    resample: Image.Resampling,
    val_share: float,
    seed: int,
    on_packed: OnPacked | None = None,
) -> LabelledPhotos:
    """Find, decode and split. Photos that cannot be decoded are left out before the split.

    Raises `LabelsError` for a bad CSV, and `TrainingError` for photos in no folders, fewer than two classes,
    or nothing to hold out.
    """
    first, second = _found(sources)
    packed = pack_files(
        first.files + second.files,
        cache,
        side=side,
        source=sources.folder,
        whole=resample,
        on_progress=on_packed,
    )
    texts, trained = _of_decoded(first, second, packed)
    names = class_names(texts[:trained])
    check_known(texts[trained:], names, sources.val or sources.folder)
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[text] for text in texts], np.int64)
    if sources.val is None:
        training, validation = split(labels, val_share, seed)
    else:
        training, validation = np.arange(trained), np.arange(trained, len(texts))
        if not len(validation):
            raise TrainingError(f"no photo could be read under {display_path(sources.val)}")
    return LabelledPhotos(
        packed.images,
        labels,
        names,
        training,
        validation,
        first.unlabelled + second.unlabelled,
        packed.failures,
        _signature(packed.signature, texts, validation),
    )


def _found(sources: Sources) -> tuple[LabelledFiles, LabelledFiles]:
    """What is to be trained on, and what lies in the folder for validation, if there is one."""
    if sources.labels is None:
        first = labels_of_folders(sources.folder)
    else:
        first = labels_of_csv(sources.labels, sources.folder)
    if sources.val is None:
        return first, LabelledFiles((), ())
    second = labels_of_folders(sources.val)
    _check_apart(first, second, sources.val)
    return first, second


def _of_decoded(first: LabelledFiles, second: LabelledFiles, packed: PackedPhotos) -> tuple[list[str], int]:
    """The labels of the packed rows, and how many of them are of `first`."""
    failed = {path for path, _ in packed.failures}
    parts = [
        [text for stamp, text in zip(part.files, part.labels, strict=True) if stamp.path not in failed]
        for part in (first, second)
    ]
    if not parts[0]:
        raise TrainingError("none of the photos to train on could be read")
    return parts[0] + parts[1], len(parts[0])


def _check_apart(first: LabelledFiles, second: LabelledFiles, folder: str) -> None:
    shared = {stamp.path for stamp in first.files} & {stamp.path for stamp in second.files}
    if shared:
        raise TrainingError(
            f"{display_path(min(shared))} would be trained on and held out: {display_path(folder)} must not "
            "share photos with the folder to train on"
        )


def _signature(packed: str, texts: list[str], validation: NDArray[np.int64]) -> str:
    hashed = hashlib.sha256(packed.encode())
    hashed.update("\0".join(texts).encode("utf-8", "surrogatepass"))
    hashed.update(validation.tobytes())
    return hashed.hexdigest()


def absolute(path: str | os.PathLike[str] | None) -> str | None:
    """As run.json keeps paths."""
    return None if path is None else os.path.abspath(os.fspath(path))
