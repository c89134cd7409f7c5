"""Which photos a step of pretraining sees, and how they are cropped and masked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitmae_search.training.augment import Crops, random_crops, resize_crops
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.training.stream import EpochStream, Normalisation, step_seed


@dataclass(frozen=True, slots=True)
class Batch:
    """Photos of a step as they are stored, (N, side, side, 3) uint8, and what is to be done to them."""

    images: Tensor
    crops: Crops
    noise: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def split(self, parts: int) -> list[Batch]:
        """`parts` batches of nearly equal length, in order."""
        columns = (getattr(self.crops, name).tensor_split(parts) for name in Crops.__slots__)
        crops = [Crops(*fields) for fields in zip(*columns, strict=True)]
        pieces = zip(self.images.tensor_split(parts), crops, self.noise.tensor_split(parts), strict=True)
        return [Batch(*piece) for piece in pieces]


class Batches:
    """The endless stream of shuffled epochs, cut into batches."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        options: PretrainOptions,
        *,
        image_size: int,
        num_patches: int,
        normalise: Normalisation,
        device: torch.device,
    ) -> None:
        self._images = images
        self._options = options
        self._image_size = image_size
        self._num_patches = num_patches
        self._normalise = normalise
        self._device = device
        self._stream = EpochStream(len(images), options.seed)

    def at(self, step: int) -> Batch:
        """What step `step` sees."""
        size = self._options.batch_size
        images = torch.from_numpy(self._images[self._stream.rows(step * size, size)])
        generator = torch.Generator().manual_seed(step_seed(self._options.seed, step))
        crops = random_crops(
            size,
            *images.shape[1:3],
            scale=self._options.crop_scale,
            flip=self._options.flip,
            generator=generator,
        )
        return Batch(images, crops, torch.rand((size, self._num_patches), generator=generator))

    def model_input(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """pixel_values (N, 3, S, S) float32 and noise (N, num_patches) float32, on the device."""
        pixels = resize_crops(batch.images.to(self._device), batch.crops, self._image_size)
        return self._normalise(pixels), batch.noise.to(self._device)
