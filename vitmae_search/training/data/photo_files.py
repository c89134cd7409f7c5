"""A folder of photos as a data set that decodes each photo when it is needed."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from vitmae_search.errors import TrainingError, display_path
from vitmae_search.photos.square_photos import decode_square
from vitmae_search.records import Stamp
from vitmae_search.training.data.packed_photos import files_signature, list_photos

DecodedPhoto = tuple[NDArray[np.uint8], dict[int, str]]
"""(side, side, 3) uint8, and the reason for each row that could not be decoded on the way to it."""


class PhotoFilesDataset(Dataset[DecodedPhoto]):
    """Photos decoded on demand, for folders too large to be packed.

    In place of a photo that cannot be decoded comes the next one that can. Such a photo is known only once
    it was read; whoever reads collects the reasons in `failed`. The data set can be sent to other processes.

    Args:
        files: The photos, in the order of the rows.
        side: Height and width in pixels to which each photo is scaled and cropped.
        source: The folder, for error messages.
    """

    def __init__(self, files: Sequence[Stamp], side: int, source: str | os.PathLike[str]) -> None:
        self.signature = files_signature(files, side, "loose")
        self.failed: dict[int, str] = {}
        self._paths = [stamp.path for stamp in files]
        self._side, self._source = side, os.fspath(source)

    @classmethod
    def of_folder(cls, folder: str | os.PathLike[str], side: int) -> PhotoFilesDataset:
        """All photos under a folder.

        Args:
            folder: Searched recursively.
            side: Height and width in pixels of the decoded photos.

        Raises:
            TrainingError: As `list_photos`.
        """
        return cls(list_photos(folder), side, folder)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> DecodedPhoto:
        """The photo of this row.

        Raises:
            TrainingError: No photo of the folder can be decoded.
        """
        failed: dict[int, str] = {}
        for i in range(len(self)):
            candidate = (row + i) % len(self)
            decoded = decode_square(self._paths[candidate], self._side)
            if not isinstance(decoded, str):
                return decoded, failed
            failed[candidate] = decoded
        raise TrainingError(f"no photo could be read under {display_path(self._source)}")

    def image(self, row: int) -> NDArray[np.uint8]:
        """The photo of this row, (side, side, 3) uint8."""
        return self[row][0]

    @property
    def failures(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of the photos that could not be decoded so far."""
        return tuple((self._paths[row], reason) for row, reason in sorted(self.failed.items()))
