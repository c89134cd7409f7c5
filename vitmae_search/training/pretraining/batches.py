"""Which photos a step of pretraining sees, and how they are cropped and masked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitmae_search.training.data.color_jitter import Looks, Turns, look_at, random_looks
from vitmae_search.training.data.random_resized_crop import Crops, random_crops, resize_crops, rows_of
from vitmae_search.training.data.sampler import EpochStream, Normalisation, step_seed
from vitmae_search.training.distributed import Processes
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.training.pretraining.photo_source import Photos, open_source
from vitmae_search.training.transfer import send


@dataclass(frozen=True, slots=True)
class View:
    """What is done to each of N photos: a crop, other colours if any, and the noise (N, L) that masks it."""

    crops: Crops
    noise: Tensor
    looks: Looks | None

    def rows(self, rows: Tensor | slice) -> View:
        looks = None if self.looks is None else rows_of(self.looks, rows)
        return View(rows_of(self.crops, rows), self.noise[rows], looks)


@dataclass(frozen=True, slots=True)
class Batch:
    """Photos of a step as they are stored, (N, side, side, 3) uint8, and the views that are taken of them.

    One view, or with a contrastive loss two.
    """

    images: Tensor
    views: tuple[View, ...]

    def __len__(self) -> int:
        return len(self.images)

    def split(self, parts: int) -> list[Batch]:
        """`parts` batches of nearly equal length, in order."""
        if parts == 1:
            return [self]
        ends = [0, *itertools.accumulate(map(len, np.array_split(np.arange(len(self)), parts)))]
        pieces = [slice(*ends) for ends in itertools.pairwise(ends)]
        return [Batch(self.images[rows], tuple(view.rows(rows) for view in self.views)) for rows in pieces]


class Batches:
    """The endless stream of shuffled epochs, cut into batches."""

    def __init__(
        self,
        photos: Photos,
        options: PretrainOptions,
        *,
        image_size: int,
        num_patches: int,
        normalise: Normalisation,
        processes: Processes,
    ) -> None:
        self._options = options
        self._image_size = image_size
        self._num_patches = num_patches
        self._normalise = normalise
        self._device = processes.device
        self._share = processes.share(options.batch_size)
        self._stream = EpochStream(len(photos), options.seed)
        self._source = open_source(photos, self._rows, options, self._device)

    def at(self, step: int) -> Batch:
        """What this process sees of step `step`."""
        images = self._source.at(step)
        generator = torch.Generator().manual_seed(step_seed(self._options.seed, step))
        views = 2 if self._options.contrastive else 1
        drawn = [self._view(images.shape[1:3], generator) for _ in range(views)]
        return Batch(images, tuple(view.rows(self._share) for view in drawn))

    def model_input(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """pixel_values (V·N, 3, S, S) and noise (V·N, L), both float32, view after view, on the device."""
        turns = tuple(None if view.looks is None else Turns.of(view.looks) for view in batch.views)
        images, views, turns = send((batch.images, batch.views, turns), self._device)
        pixels = [self._pixels(images, *pair) for pair in zip(views, turns, strict=True)]
        return self._normalise(torch.cat(pixels)), torch.cat([view.noise for view in views])

    def close(self) -> None:
        """End what works ahead."""
        self._source.close()

    def _rows(self, step: int) -> NDArray[np.int64]:
        size = self._options.batch_size
        return self._stream.rows(step * size, size)[self._share]

    def _view(self, shape: Sequence[int], generator: torch.Generator) -> View:
        """For photos of this height and width, and for all processes, so that it does not matter how many."""
        (height, width), options = shape, self._options
        count = options.batch_size
        crops = random_crops(
            count, height, width, scale=options.crop_scale, flip=options.flip, generator=generator
        )
        noise = torch.rand((count, self._num_patches), generator=generator)
        return View(crops, noise, random_looks(count, generator) if options.contrastive else None)

    def _pixels(self, images: Tensor, view: View, turns: Turns | None) -> Tensor:
        if view.looks is None:
            return resize_crops(images, view.crops, self._image_size)
        return look_at(images, view.crops, view.looks, self._image_size, turns)
