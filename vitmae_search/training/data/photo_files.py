"""A folder of photos that are decoded whenever they are needed, where packing them all would be too much."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from vitmae_search.errors import TrainingError, display_path
from vitmae_search.photos.square_crops import square
from vitmae_search.records import Stamp
from vitmae_search.training.data.packed_photos import list_photos, signature_of

Decoded = tuple[NDArray[np.uint8], dict[int, str]]
"""A picture, and why which rows could not be decoded before it."""


class LoosePhotos(Dataset[Decoded]):
    """`photos[i]` is photo i, (side, side, 3) uint8, and what could not be decoded on the way to it.

    In the place of a photo that cannot be decoded comes the next one that can, always the same. Such a
    photo is known only once it was its turn: `failed` says which ones and why, as far as anyone noted it.
    Can be sent to another process.
    """

    def __init__(self, files: Sequence[Stamp], side: int, source: str | os.PathLike[str]) -> None:
        self.signature = signature_of(files, side, "loose")
        self.failed: dict[int, str] = {}
        self._paths = [stamp.path for stamp in files]
        self._side, self._source = side, os.fspath(source)

    @classmethod
    def of_folder(cls, folder: str | os.PathLike[str], side: int) -> LoosePhotos:
        """Raises `TrainingError` as `list_photos` does."""
        return cls(list_photos(folder), side, folder)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> Decoded:
        """Raises `TrainingError` where no photo can be decoded."""
        failed: dict[int, str] = {}
        for i in range(len(self)):
            place = (row + i) % len(self)
            decoded = square(self._paths[place], self._side)
            if not isinstance(decoded, str):
                return decoded, failed
            failed[place] = decoded
        raise TrainingError(f"no photo could be read under {display_path(self._source)}")

    def picture(self, row: int) -> NDArray[np.uint8]:
        """(side, side, 3) uint8."""
        return self[row][0]

    @property
    def failures(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of what could not be decoded so far."""
        return tuple((self._paths[row], reason) for row, reason in sorted(self.failed.items()))
