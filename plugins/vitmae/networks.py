"""What is computed: prepared photos' bytes to vectors or probabilities, wherever the weights are."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitmae_search.vitmae import ViTForImageClassification, ViTMAEModel, ViTModel, pool, pool_layers

from .features import Features
from .openvino import OpenVINOEncoder
from .pixels import pixel_values, views_of


class Network(nn.Module):
    """Prepared photos, (N, ...) uint8, to a row for each, (N, `width`) float32, whatever the others are.

    `levels` is what `levels_of` gives. Called without gradients, by several threads at a time on a CPU.
    """

    levels: Tensor

    def __init__(self, encoder: ViTMAEModel | ViTModel | OpenVINOEncoder, levels: Tensor, width: int) -> None:
        super().__init__()
        self.encoder, self.width = encoder, width
        self.register_buffer("levels", levels)


class UnitVectors(Network):
    """What an embedder computes: of (N, H, W, 3) or, for five crops, (N, 5, H, W, 3), rows of unit length."""

    def __init__(
        self,
        encoder: ViTMAEModel | OpenVINOEncoder,
        levels: Tensor,
        width: int,
        *,
        features: Features,
        gem_power: float,
        views: str,
    ) -> None:
        super().__init__(encoder, levels, width)
        self._layers, self._pooling = features.layers, features.pooling
        self._gem_power, self._views = gem_power, views

    def forward(self, batch: Tensor) -> Tensor:
        # One view after another, in the memory that one takes.
        views = [self._unit_vectors(view) for view in views_of(batch, self.levels, self._views)]
        return views[0] if len(views) == 1 else functional.normalize(torch.stack(views).sum(dim=0), dim=1)

    def _unit_vectors(self, pixels: Tensor) -> Tensor:
        encoder = cast(ViTMAEModel | OpenVINOEncoder, self.encoder)
        states = encoder.encode(pixels, self._layers, interpolate_pos_encoding=True)
        vectors = pool_layers(states, self._pooling, power=self._gem_power)
        return functional.normalize(vectors.float(), dim=1)


class Probabilities(Network):
    """What a classifier computes: of (N, H, W, 3), each class's probability."""

    def __init__(self, model: ViTForImageClassification, levels: Tensor, pooled: str) -> None:
        super().__init__(model.vit, levels, model.num_labels)
        self.head, self._pooled = model.classifier, pooled

    def forward(self, batch: Tensor) -> Tensor:
        encoder = cast(ViTModel, self.encoder)
        (tokens,) = encoder.encode(pixel_values(batch, self.levels), (encoder.config.num_hidden_layers,))
        features = tokens[:, 0] if self._pooled == "cls" else pool(tokens, "mean")
        return cast(Tensor, self.head(features)).float().softmax(dim=1)
