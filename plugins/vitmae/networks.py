"""Networks: from prepared photos, as bytes, to vectors or probabilities, on the device of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitmae_search.errors import ModelError, PluginOptionError
from vitmae_search.vitmae import (
    Checkpoint,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTMAEModel,
    ViTModel,
    pool,
    pool_layers,
)
from vitmae_search.vitmae.normalization import pixel_values

from .features import FeatureSpec
from .openvino import OpenVINOEncoder
from .options import NAME
from .preprocess import CROP_FRACTION, FiveCrops, Resize


def require_rgb(checkpoint: Checkpoint, name: str) -> None:
    """Check that a model takes RGB images.

    Args:
        checkpoint: The model.
        name: Its name, for the message.

    Raises:
        ModelError: It has another number of channels.
    """
    channels = checkpoint.config.num_channels
    if channels != 3:
        raise ModelError(f"{name} looks at {channels} channels; photos have 3")


def make_processor(checkpoint: Checkpoint, image_size: int = 0) -> ViTImageProcessor:
    """The checkpoint's image processor.

    Args:
        checkpoint: The model.
        image_size: Height and width to resize to, in pixels; 0 for the model's own.

    Raises:
        PluginOptionError: `image_size` is not a multiple of the patch size.
    """
    config = checkpoint.config
    if any(image_size % side for side in config.patch_shape):
        rule = f"must be a multiple of the model's patch size, {config.patch_size}"
        raise PluginOptionError(NAME, f"image_size={image_size} {rule}")
    height, width = (image_size, image_size) if image_size else config.image_shape
    processor = ViTImageProcessor.for_checkpoint(checkpoint.files, config)
    return replace(processor, do_resize=True, size={"height": height, "width": width})


def make_prepare(processor: ViTImageProcessor, views: str) -> tuple[Resize | FiveCrops, int]:
    """The callable that prepares photos for `split_views`, and the side in pixels that it needs of them.

    Args:
        processor: Its size and filter are used.
        views: "1", "flip" or "five".
    """
    height, width = processor.height_width
    resize = Resize(height, width, processor.resample)
    side = max(height, width)
    return (FiveCrops(resize), math.ceil(side / CROP_FRACTION)) if views == "five" else (resize, side)


def split_views(batch: Tensor, levels: Tensor, views: str) -> Iterator[Tensor]:
    """The pixel_values (N, 3, H, W) of each view in turn.

    Args:
        batch: Prepared photos (see `make_prepare`): (N, H, W, 3) or (N, 5, H, W, 3) uint8.
        levels: (3, 256), as of `normalization_table`.
        views: "1", "flip" or "five".
    """
    if views == "five":
        for number in range(batch.shape[1]):
            yield pixel_values(batch[:, number], levels)
        return
    whole = pixel_values(batch, levels)
    yield whole
    if views == "flip":
        yield whole.flip(3)


class Network(nn.Module):
    """Prepared photos (N, ...) uint8 to (N, width) float32, each row independent of the others.

    Called without gradients, on a CPU by several threads at a time.

    Args:
        encoder: The model's encoder.
        levels: As of `normalization_table`.
        width: Of a result.
    """

    levels: Tensor

    def __init__(self, encoder: ViTMAEModel | ViTModel | OpenVINOEncoder, levels: Tensor, width: int) -> None:
        super().__init__()
        self.encoder, self.width = encoder, width
        self.register_buffer("levels", levels)


class UnitVectors(Network):
    """The network of an embedder: (N, H, W, 3) or, for five crops, (N, 5, H, W, 3) to unit vectors.

    Args:
        encoder: The model's encoder.
        levels: As of `normalization_table`.
        width: Of a vector.
        features: Layers and pooling.
        gem_power: Power of GeM pooling.
        views: "1", "flip" or "five".
        grid_size: Rows and columns of the patches; None where they are a square.
    """

    def __init__(
        self,
        encoder: ViTMAEModel | OpenVINOEncoder,
        levels: Tensor,
        width: int,
        *,
        features: FeatureSpec,
        gem_power: float,
        views: str,
        grid_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(encoder, levels, width)
        self._layers, self._pooling = features.layers, features.pooling
        self._gem_power, self._views, self._grid_size = gem_power, views, grid_size

    def forward(self, batch: Tensor) -> Tensor:
        """(N, ...) uint8 to (N, width) float32 of unit length."""
        # One view after another, to need the memory of only one.
        views = [self._unit_vectors(view) for view in split_views(batch, self.levels, self._views)]
        return views[0] if len(views) == 1 else functional.normalize(torch.stack(views).sum(dim=0), dim=1)

    def _unit_vectors(self, pixels: Tensor) -> Tensor:
        encoder = cast(ViTMAEModel | OpenVINOEncoder, self.encoder)
        states = encoder.encode(pixels, self._layers, interpolate_pos_encoding=True)
        vectors = pool_layers(states, self._pooling, power=self._gem_power, grid_size=self._grid_size)
        return functional.normalize(vectors.float(), dim=1)


class PatchTokens(Network):
    """The network of patches: (N, H, W, 3) to (N, L * D), the patch tokens after a layer, row by row.

    Args:
        encoder: The model's encoder, of torch.
        levels: As of `normalization_table`.
        layer: The number of the layer.
    """

    def __init__(self, encoder: ViTMAEModel, levels: Tensor, layer: int) -> None:
        super().__init__(encoder, levels, encoder.config.hidden_size)
        self._layer = layer

    def forward(self, batch: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 to (N, L * D) float32."""
        encoder = cast(ViTMAEModel, self.encoder)
        pixels = pixel_values(batch, self.levels)
        (tokens,) = encoder.encode(pixels, (self._layer,), interpolate_pos_encoding=True)
        return tokens[:, 1:].float().flatten(1)


class Probabilities(Network):
    """The network of a classifier: (N, H, W, 3) to class probabilities.

    Args:
        model: The classifier.
        levels: As of `normalization_table`.
        pooled: "cls", or "mean" of the patch tokens.
    """

    def __init__(self, model: ViTForImageClassification, levels: Tensor, pooled: str) -> None:
        super().__init__(model.vit, levels, model.num_labels)
        head: nn.Module = model.classifier
        self.head = head if model.fc_norm is None else nn.Sequential(model.fc_norm, head)
        self._pooled = pooled

    def forward(self, batch: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 to (N, classes) float32."""
        encoder = cast(ViTModel, self.encoder)
        (tokens,) = encoder.encode(pixel_values(batch, self.levels), (encoder.config.num_hidden_layers,))
        features = tokens[:, 0] if self._pooled == "cls" else pool(tokens, "mean")
        return cast(Tensor, self.head(features)).float().softmax(dim=1)
