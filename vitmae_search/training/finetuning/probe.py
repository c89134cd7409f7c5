"""The linear probe: a frozen encoder's features, BatchNorm without affine, and a linear map."""

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
from vitmae_search.training.devices import computing
from vitmae_search.training.finetuning.data import LabelledPhotos
from vitmae_search.training.finetuning.features import cached_features
from vitmae_search.training.finetuning.mixup import soft_cross_entropy, soft_targets
from vitmae_search.training.finetuning.model import Classifier, fold_batch_norm, head_of
from vitmae_search.training.finetuning.options import FinetuneOptions
from vitmae_search.training.finetuning.task import Pixels, StepRows, whole_photos
from vitmae_search.vitmae import Pooling, ViTModel, pool

_EPS = 1e-6  # facebookresearch/mae main_linprobe.py
_MOMENTUM = 0.9
_VIEW_SEED = 1 << 40  # apart from the seeds of steps


class Probe:
    """The task `probe`. `features` are as `encode_views` makes them. The encoder stays as it was."""

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
        self._rows = StepRows(photos, options)
        head = head_of(model)
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
        """Each photo of the batch in one of its views, drawn evenly."""
        places = self._rows.at(step)
        rng = np.random.default_rng((self._options.seed, step))
        views = rng.integers(0, self._options.views, len(places))
        features = self._of(view_rows(self._photos, places, views))
        labels = torch.from_numpy(self._photos.labels[self._photos.training[places]]).to(self._device)
        targets = soft_targets(labels, len(self._photos.names), smoothing=self._options.label_smoothing)
        return soft_cross_entropy(self.trained.train()(features), targets)

    def validate(self) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = self.trained.eval()(self._of(self._photos.validation))
            return logits.cpu()

    def classifier(self, state: dict[str, Any]) -> Classifier:
        """The BatchNorm is folded into the linear map, so that the head is one `nn.Linear`."""
        norm = nn.BatchNorm1d(self._norm.num_features, affine=False, eps=_EPS)
        linear = nn.Linear(self._linear.in_features, self._linear.out_features)
        nn.Sequential(norm, linear).load_state_dict(state)
        head = head_of(self._model)
        with torch.no_grad():
            for parameter, value in zip((head.weight, head.bias), fold_batch_norm(norm, linear), strict=True):
                parameter.copy_(value)
        return self._model

    def _of(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self._features[rows]).to(self._device)


def view_rows(
    photos: LabelledPhotos, places: NDArray[np.int64], views: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Rows of the features: every photo whole, then each further view of those to train on, in turn."""
    first = photos.training[places]
    others = len(photos.labels) + (views - 1) * len(photos.training) + places
    return np.where(views == 0, first, others)


def encode_views(
    encoder: ViTModel,
    pixels: Pixels,
    photos: LabelledPhotos,
    folder: Path,
    options: FinetuneOptions,
    *,
    device: torch.device,
    signature: str,
    on_progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> NDArray[np.float32] | None:
    """Pooled features of all photos and views, or None where `stop` said so; see `cached_features`."""
    whole, further = len(photos.labels), len(photos.training)
    pooling: Pooling = "mean" if options.pooling == "mean" else "cls"

    def encode(start: int, end: int) -> NDArray[np.float32]:
        rows = np.arange(start, end)
        views = np.where(rows < whole, 0, 1 + (rows - whole) // further)
        chosen = np.where(rows < whole, rows % whole, photos.training[(rows - whole) % further])
        crops = _view_crops(rows, views, pixels.stored_shape, options)
        with computing(device, options.precision), torch.inference_mode():
            tokens = encoder(pixels.of(chosen, crops), return_dict=True).last_hidden_state
            return pool(tokens, pooling).cpu().numpy()

    return cached_features(
        folder,
        encode,
        shape=(whole + (options.views - 1) * further, encoder.config.hidden_size),
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
    """View 0 is the whole photo, 1 its mirror image where photos may be flipped, others random crops."""
    crops = whole_photos(len(rows), *shape)
    crops.flipped[torch.from_numpy(views == 1)] = options.flip
    for i in np.flatnonzero(views > int(options.flip)):
        generator = torch.Generator().manual_seed(step_seed(options.seed, _VIEW_SEED + int(rows[i])))
        one = random_crops(1, *shape, scale=options.crop_scale, flip=options.flip, generator=generator)
        for name in Crops.__slots__:
            getattr(crops, name)[i] = getattr(one, name)[0]
    return crops
