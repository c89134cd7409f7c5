"""Linear probing (He et al. 2022, appendix A): a frozen encoder, BatchNorm without affine, a linear layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitmae_search.training.data.random_resized_crop import Crops, random_crops
from vitmae_search.training.data.sampler import step_seed
from vitmae_search.training.devices import precision_context
from vitmae_search.training.finetuning.data import LabelledPhotos
from vitmae_search.training.finetuning.features import cached_features
from vitmae_search.training.finetuning.mixup import soft_cross_entropy, soft_targets
from vitmae_search.training.finetuning.model import Classifier, classifier_head, fold_batch_norm
from vitmae_search.training.finetuning.options import FinetuneOptions
from vitmae_search.training.finetuning.task import BatchSampler, PixelLoader, full_frame_crops
from vitmae_search.vitmae import Pooling, ViTModel, pool

_EPS = 1e-6
"""As `main_linprobe.py` of facebookresearch/mae."""
_MOMENTUM = 0.9
_VIEW_SEED_OFFSET = 1 << 40
"""Keeps the seeds of views apart from those of steps."""


class LinearProbe:
    """The mode "probe".

    Args:
        model: Its head is replaced by the trained one; its encoder stays as it is.
        features: As of `encode_views`.
        photos: The data set.
        options: The run's options.
        device: The device that trains.
    """

    def __init__(
        self,
        model: Classifier,
        features: NDArray[np.float32],
        photos: LabelledPhotos,
        options: FinetuneOptions,
        device: torch.device,
    ) -> None:
        self._model, self._features, self._photos = model, features, photos
        self._options, self._device = options, device
        self._batches = BatchSampler(photos, options)
        head = classifier_head(model)
        self._norm = nn.BatchNorm1d(head.in_features, affine=False, eps=_EPS)
        self._linear = nn.Linear(head.in_features, head.out_features)
        self._linear.load_state_dict(head.state_dict())
        self.trained: nn.Module = nn.Sequential(self._norm, self._linear).to(device)
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(
            self._linear.parameters(),
            lr=options.peak_rate,
            momentum=_MOMENTUM,
            weight_decay=options.weight_decay,
        )

    def loss(self, step: int) -> Tensor:
        """See `Task`. Each photo is seen in one of its views, drawn uniformly."""
        positions = self._batches.at(step)
        rng = np.random.default_rng((self._options.seed, step))
        views = rng.integers(0, self._options.views, len(positions))
        features = self._features_at(feature_rows(self._photos, positions, views))
        labels = torch.from_numpy(self._photos.labels[self._photos.training[positions]]).to(self._device)
        targets = soft_targets(labels, len(self._photos.names), smoothing=self._options.label_smoothing)
        return soft_cross_entropy(self.trained.train()(features), targets)

    def validate(self) -> Tensor:
        """See `Task`."""
        with torch.inference_mode():
            logits: Tensor = self.trained.eval()(self._features_at(self._photos.validation))
            return logits.cpu()

    def classifier(self, state: dict[str, Any]) -> Classifier:
        """See `Task`. The BatchNorm is folded into the linear layer, so that the head is one `nn.Linear`."""
        norm = nn.BatchNorm1d(self._norm.num_features, affine=False, eps=_EPS)
        linear = nn.Linear(self._linear.in_features, self._linear.out_features)
        nn.Sequential(norm, linear).load_state_dict(state)
        head = classifier_head(self._model)
        with torch.no_grad():
            for parameter, value in zip((head.weight, head.bias), fold_batch_norm(norm, linear), strict=True):
                parameter.copy_(value)
        return self._model

    def _features_at(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self._features[rows]).to(self._device)


def feature_rows(
    photos: LabelledPhotos, positions: NDArray[np.int64], views: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The rows of views in the array of `encode_views`.

    That holds view 0 of all photos, and then each further view of the training photos.

    Args:
        photos: The data set.
        positions: (n,), positions in `photos.training`.
        views: (n,), the number of the view of each.
    """
    whole = photos.training[positions]
    further = len(photos.labels) + (views - 1) * len(photos.training) + positions
    return np.where(views == 0, whole, further)


def encode_views(
    encoder: ViTModel,
    pixels: PixelLoader,
    photos: LabelledPhotos,
    folder: Path,
    options: FinetuneOptions,
    *,
    device: torch.device,
    signature: str,
    on_progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> NDArray[np.float32] | None:
    """Encode view 0 of all photos and `options.views` - 1 further views of the training photos.

    Args:
        encoder: On `device`.
        pixels: Loads the photos.
        photos: The data set.
        folder: Keeps the features (see `cached_features`).
        options: The run's options.
        device: The device that encodes.
        signature: Of the photos and the encoder.
        on_progress: Called with the views done and all views.
        stop: True ends early.

    Returns:
        (views, width) float32, pooled, in the order of `feature_rows`; None where `stop` ended it early.
    """
    whole_count, train_count = len(photos.labels), len(photos.training)
    pooling: Pooling = "mean" if options.pooling == "mean" else "cls"

    def encode(start: int, end: int) -> NDArray[np.float32]:
        rows = np.arange(start, end)
        views = np.where(rows < whole_count, 0, 1 + (rows - whole_count) // train_count)
        further = photos.training[(rows - whole_count) % train_count]
        photo_rows = np.where(rows < whole_count, rows % whole_count, further)
        crops = _view_crops(rows, views, pixels.stored_shape, options)
        with precision_context(device, options.precision), torch.inference_mode():
            tokens = encoder(pixels.load(photo_rows, crops), return_dict=True).last_hidden_state
            return pool(tokens, pooling).cpu().numpy()

    return cached_features(
        folder,
        encode,
        shape=(whole_count + (options.views - 1) * train_count, encoder.config.hidden_size),
        signature=f"{signature} {options.views} {options.crop_scale} {options.flip} {options.seed} "
        f"{options.precision}",
        on_progress=on_progress,
        stop=stop,
    )


def _view_crops(
    rows: NDArray[np.int64],
    views: NDArray[np.int64],
    shape: tuple[int, int],
    options: FinetuneOptions,
) -> Crops:
    """View 0 is the whole photo, view 1 its mirror image (if `flip`), the others are random crops."""
    crops = full_frame_crops(len(rows), *shape)
    crops.flipped[torch.from_numpy(views == 1)] = options.flip
    for i in np.flatnonzero(views > int(options.flip)):
        generator = torch.Generator().manual_seed(step_seed(options.seed, _VIEW_SEED_OFFSET + int(rows[i])))
        one = random_crops(1, *shape, scale=options.crop_scale, flip=options.flip, generator=generator)
        for name in Crops.__slots__:
            getattr(crops, name)[i] = getattr(one, name)[0]
    return crops
