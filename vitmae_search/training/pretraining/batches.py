"""The photos of each pretraining step, and how they are cropped, augmented and masked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitmae_search.training.data.color_jitter import (
    ColorJitter,
    RotationSplit,
    augment,
    random_color_jitter,
)
from vitmae_search.training.data.normalize import Normalize
from vitmae_search.training.data.photo_edits import PhotoEdits, edit, random_photo_edits
from vitmae_search.training.data.random_resized_crop import Crops, random_crops, resize_crops, select_rows
from vitmae_search.training.data.sampler import EpochSampler, step_seed
from vitmae_search.training.distributed import DistributedContext
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.training.pretraining.photo_source import Photos, open_photo_source
from vitmae_search.training.transfer import to_device


@dataclass(frozen=True, slots=True)
class View:
    """One augmented view of each of N photos.

    Attributes:
        crops: A box for each photo.
        noise: (N, L) float32 in [0, 1), by which patches are masked.
        jitter: Rotation and color changes; None without them.
        edits: Quarter turns, stickers and frames; None without them.
    """

    crops: Crops
    noise: Tensor
    jitter: ColorJitter | None = None
    edits: PhotoEdits | None = None

    def select(self, rows: Tensor | slice) -> View:
        """The view of some of the photos."""
        jitter = None if self.jitter is None else select_rows(self.jitter, rows)
        edits = None if self.edits is None else select_rows(self.edits, rows)
        return View(select_rows(self.crops, rows), self.noise[rows], jitter, edits)


@dataclass(frozen=True, slots=True)
class Batch:
    """The photos of a step, and the views to take of them.

    Attributes:
        images: (N, side, side, 3) uint8, as they are stored.
        views: One view, or two with a contrastive loss.
        mask_ratio: The share of patches to remove; None is the model's own.
    """

    images: Tensor
    views: tuple[View, ...]
    mask_ratio: float | None = None

    def __len__(self) -> int:
        return len(self.images)

    def split(self, parts: int) -> list[Batch]:
        """`parts` batches of nearly equal length, in order."""
        if parts == 1:
            return [self]
        ends = [0, *itertools.accumulate(map(len, np.array_split(np.arange(len(self)), parts)))]
        slices = [slice(*ends) for ends in itertools.pairwise(ends)]
        return [self._select(rows) for rows in slices]

    def _select(self, rows: slice) -> Batch:
        views = tuple(view.select(rows) for view in self.views)
        return replace(self, images=self.images[rows], views=views)


class BatchLoader:
    """The batches of a run, each a function of the seed and the step.

    Args:
        photos: The training data.
        options: The run's options.
        image_size: Height and width of the model's input, in pixels.
        num_patches: Patches of an image.
        normalize: Applied to the model's input.
        distributed: Each process loads its own part of every batch.
    """

    def __init__(
        self,
        photos: Photos,
        options: PretrainOptions,
        *,
        image_size: int,
        num_patches: int,
        normalize: Normalize,
        distributed: DistributedContext,
    ) -> None:
        self._options = options
        self._image_size = image_size
        self._num_patches = num_patches
        self._normalize = normalize
        self._device = distributed.device
        self._local = distributed.local_slice(options.batch_size)
        self._sampler = EpochSampler(len(photos), options.seed)
        self._source = open_photo_source(photos, self._step_rows, options, self._device)

    def at(self, step: int) -> Batch:
        """This process's part of the batch of step `step`."""
        images = self._source.at(step)
        generator = torch.Generator().manual_seed(step_seed(self._options.seed, step))
        views = 2 if self._options.contrastive else 1
        drawn = [self._random_view(images.shape[1:3], generator) for _ in range(views)]
        ratios = self._options.mask_ratios
        ratio = None if ratios is None else float(torch.empty(()).uniform_(*ratios, generator=generator))
        return Batch(images, tuple(view.select(self._local) for view in drawn), ratio)

    def model_input(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Apply the views on the device.

        Returns:
            pixel_values (V·N, 3, S, S) and noise (V·N, L), both float32, one view after another.
        """
        splits = tuple(None if view.jitter is None else RotationSplit.of(view.jitter) for view in batch.views)
        images, views, splits = to_device((batch.images, batch.views, splits), self._device)
        pixels = [self._pixels(images, view, split) for view, split in zip(views, splits, strict=True)]
        return self._normalize(torch.cat(pixels)), torch.cat([view.noise for view in views])

    def close(self) -> None:
        """Stop the processes that decode ahead."""
        self._source.close()

    def _step_rows(self, step: int) -> NDArray[np.int64]:
        size = self._options.batch_size
        return self._sampler.rows(step * size, size)[self._local]

    def _random_view(self, shape: Sequence[int], generator: torch.Generator) -> View:
        """A view of the whole batch, so that it does not depend on the number of processes."""
        (height, width), options = shape, self._options
        count = options.batch_size
        crops = random_crops(
            count, height, width, scale=options.crop_scale, flip=options.flip, generator=generator
        )
        noise = torch.rand((count, self._num_patches), generator=generator)
        if not options.contrastive:
            return View(crops, noise)
        return View(crops, noise, random_color_jitter(count, generator), random_photo_edits(count, generator))

    def _pixels(self, images: Tensor, view: View, split: RotationSplit | None) -> Tensor:
        if view.jitter is None or view.edits is None:
            return resize_crops(images, view.crops, self._image_size)
        return edit(augment(images, view.crops, view.jitter, self._image_size, split), view.edits)
