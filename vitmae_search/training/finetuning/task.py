"""What the loop asks of a mode of fine-tuning, and the pixels that both modes look at."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitmae_search.training.data.random_resized_crop import Crops, resize_crops
from vitmae_search.training.data.sampler import EpochStream, Normalisation
from vitmae_search.training.finetuning.data import LabelledPhotos
from vitmae_search.training.finetuning.model import Classifier
from vitmae_search.training.finetuning.options import FinetuneOptions
from vitmae_search.training.transfer import send
from vitmae_search.vitmae import ViTImageProcessor


class Task(Protocol):
    """A mode: what is trained, on what. Everything random is a function of the seed and the step."""

    trained: nn.Module
    optimizer: torch.optim.Optimizer

    def loss(self, step: int) -> Tensor:
        """The loss of one step's batch, to be differentiated."""
        ...

    def validate(self) -> Tensor:
        """Logits (V, classes) float32 on the CPU of the photos held out, as the saved model gives them."""
        ...

    def classifier(self, state: dict[str, Any]) -> Classifier:
        """The model to save, given `trained`'s state dict."""
        ...


class StepRows:
    """Which rows of the training part a step sees; a batch never has more photos than there are."""

    def __init__(self, photos: LabelledPhotos, options: FinetuneOptions) -> None:
        self.batch_size = min(options.batch_size, len(photos.training))
        self._stream = EpochStream(len(photos.training), options.seed)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self._stream.count // self.batch_size)

    def at(self, step: int) -> NDArray[np.int64]:
        """Positions within `photos.training`."""
        return self._stream.rows(step * self.batch_size, self.batch_size)


class Pixels:
    """From stored photos and boxes to pixel_values on the device."""

    def __init__(
        self, images: NDArray[np.uint8], processor: ViTImageProcessor, side: int, device: torch.device
    ) -> None:
        self._images, self._side, self._device = images, side, device
        self._normalise = normalisation(processor)

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Height and width of a stored photo."""
        return self._images.shape[1], self._images.shape[2]

    def of(self, rows: NDArray[np.int64], crops: Crops) -> Tensor:
        """(len(rows), 3, S, S) float32."""
        images, crops = send((torch.from_numpy(self._images[rows]), crops), self._device)
        return self._normalise(resize_crops(images, crops, self._side))

    def whole(self, rows: NDArray[np.int64]) -> Tensor:
        """(len(rows), 3, S, S) float32 of whole photos, as the model's own processor prepares them."""
        return self.of(rows, whole_photos(len(rows), *self.stored_shape))


def whole_photos(count: int, height: int, width: int) -> Crops:
    """Boxes that take in everything, not mirrored."""
    nought = torch.zeros(count, dtype=torch.int64)
    return Crops(nought, nought.clone(), nought + height, nought + width, nought.bool())


def normalisation(processor: ViTImageProcessor) -> Normalisation:
    """What the processor does to 8-bit values after resizing, whichever of its steps are on."""
    factor = processor.rescale_factor * 255 if processor.do_rescale else 255.0
    mean = processor.image_mean if processor.do_normalize else (0.0, 0.0, 0.0)
    std = processor.image_std if processor.do_normalize else (1.0, 1.0, 1.0)
    assert not isinstance(mean, float)
    assert not isinstance(std, float)
    return Normalisation(tuple(m / factor for m in mean), tuple(s / factor for s in std))
