"""Full fine-tuning: every weight is trained, on crops that are mixed with one another."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitmae_search.training.data.random_resized_crop import random_crops
from vitmae_search.training.data.sampler import step_seed
from vitmae_search.training.devices import computing
from vitmae_search.training.finetuning.data import LabelledPhotos
from vitmae_search.training.finetuning.drop_path import add_drop_path
from vitmae_search.training.finetuning.layer_decay import layer_groups
from vitmae_search.training.finetuning.mixup import draw_mix, mix_pixels, soft_cross_entropy, soft_targets
from vitmae_search.training.finetuning.model import Classifier, with_weights
from vitmae_search.training.finetuning.options import FinetuneOptions
from vitmae_search.training.finetuning.task import Pixels, StepRows
from vitmae_search.training.transfer import send

_BETAS = (0.9, 0.999)
_AT_ONCE = 64  # photos a forward pass of the validation


class FullFinetuning:
    """The task `full`. `model` is trained in place."""

    def __init__(
        self,
        model: Classifier,
        pixels: Pixels,
        photos: LabelledPhotos,
        options: FinetuneOptions,
        device: torch.device,
    ) -> None:
        self._model, self._pixels, self._photos = model.to(device), pixels, photos
        self._options, self._device = options, device
        self._rows = StepRows(photos, options)
        model.set_attn_implementation("sdpa" if options.attention == "sdpa" else "eager")
        add_drop_path(model.vit, options.drop_path)
        self.trained: nn.Module = model
        groups = layer_groups(
            model,
            depth=model.config.num_hidden_layers,
            layer_decay=options.layer_decay,
            weight_decay=options.weight_decay,
        )
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            groups, lr=options.peak_rate, betas=_BETAS, fused=True
        )

    def loss(self, step: int) -> Tensor:
        options = self._options
        rows = self._photos.training[self._rows.at(step)]
        generator = torch.Generator().manual_seed(step_seed(options.seed, step))
        crops = random_crops(
            len(rows),
            *self._pixels.stored_shape,
            scale=options.crop_scale,
            flip=options.flip,
            generator=generator,
        )
        side = self._model.config.image_shape[0]
        rng = np.random.default_rng((options.seed, step))
        mix = draw_mix(rng, mixup=options.mixup, cutmix=options.cutmix, side=side)
        labels = send(torch.from_numpy(self._photos.labels[rows]), self._device)
        targets = soft_targets(labels, len(self._photos.names), smoothing=options.label_smoothing, mix=mix)
        torch.manual_seed(step_seed(options.seed, step))  # drop path, and dropout where the model has any
        with computing(self._device, options.precision):
            logits = self._model.train()(mix_pixels(self._pixels.of(rows, crops), mix)).logits
        return soft_cross_entropy(logits, targets)

    def validate(self) -> Tensor:
        rows = self._photos.validation
        self._model.eval()
        with torch.inference_mode():
            parts = np.array_split(rows, -(-len(rows) // _AT_ONCE))
            return torch.cat([self._model(self._pixels.whole(part)).logits.cpu() for part in parts])

    def classifier(self, state: dict[str, Any]) -> Classifier:
        return with_weights(self._model, state)
