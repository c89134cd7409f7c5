"""What the fine-tuning loop needs of a mode, and the batches and pixels that both modes use."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitmae_search.training.data.normalize import Normalize
from vitmae_search.training.data.random_resized_crop import Crops, resize_crops
from vitmae_search.training.data.sampler import EpochSampler
from vitmae_search.training.finetuning.data import LabelledPhotos
from vitmae_search.training.finetuning.model import Classifier
from vitmae_search.training.finetuning.options import FinetuneOptions
from vitmae_search.training.transfer import to_device
from vitmae_search.vitmae import ViTImageProcessor


class Task(Protocol):
    """A mode of fine-tuning. Everything random is a function of the seed and the step.

    Attributes:
        trained: The module whose weights are saved in the state.
        optimizer: Steps its parameters.
    """

    trained: nn.Module
    optimizer: torch.optim.Optimizer

    def loss(self, step: int) -> Tensor:
        """The loss of one step's batch, a scalar with a graph."""
        ...

    def validate(self) -> Tensor:
        """(V, classes) float32 on the CPU: logits of the validation photos, as the saved model gives them."""
        ...

    def classifier(self, state: dict[str, Any]) -> Classifier:
        """The model to save, given a state dict of `trained`."""
        ...


class BatchSampler:
    """The training photos of each step; a batch has at most as many photos as there are.

    Args:
        photos: The data set.
        options: Batch size and seed.
    """

    def __init__(self, photos: LabelledPhotos, options: FinetuneOptions) -> None:
        self.batch_size = min(options.batch_size, len(photos.training))
        self._sampler = EpochSampler(len(photos.training), options.seed)

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every photo was seen."""
        return -(-self._sampler.count // self.batch_size)

    def at(self, step: int) -> NDArray[np.int64]:
        """Positions in `photos.training` of the batch of step `step`."""
        return self._sampler.rows(step * self.batch_size, self.batch_size)


class PixelLoader:
    """Crops, resizes and normalises stored photos on the device.

    Args:
        images: (N, H, W, 3) uint8.
        processor: Its normalisation is applied.
        side: Height and width of the model's input, in pixels.
        device: The device that trains.
    """

    def __init__(
        self, images: NDArray[np.uint8], processor: ViTImageProcessor, side: int, device: torch.device
    ) -> None:
        self._images, self._side, self._device = images, side, device
        self._normalize = Normalize.from_processor(processor)

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Height and width of the stored photos, in pixels."""
        return self._images.shape[1], self._images.shape[2]

    def load(self, rows: NDArray[np.int64], crops: Crops) -> Tensor:
        """The pixel_values of crops.

        Args:
            rows: (n,), rows of the stored photos.
            crops: A box for each of them.

        Returns:
            (n, 3, side, side) float32 on the device.
        """
        images, crops = to_device((torch.from_numpy(self._images[rows]), crops), self._device)
        return self._normalize(resize_crops(images, crops, self._side))

    def load_whole(self, rows: NDArray[np.int64]) -> Tensor:
        """The pixel_values of whole photos, as the model's processor prepares them."""
        return self.load(rows, full_frame_crops(len(rows), *self.stored_shape))


def full_frame_crops(count: int, height: int, width: int) -> Crops:
    """Boxes of whole images, not mirrored.

    Args:
        count: Number of images.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
    """
    zeros = torch.zeros(count, dtype=torch.int64)
    return Crops(zeros, zeros.clone(), zeros + height, zeros + width, zeros.bool())
