"""From pixels to the tokens that an encoder's first layer sees."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitmae_search.vitmae.config import EncoderConfig
from vitmae_search.vitmae.layers import new_token
from vitmae_search.vitmae.patches import grid_of
from vitmae_search.vitmae.positions import interpolate_grid, sincos_positions


def join_tokens(patches: Tensor, positions: Tensor, cls_token: Tensor) -> Tensor:
    """(N, L, D), (1, 1 + L, D) and (1, 1, D) to (N, 1 + L, D): all with their positions, CLS first."""
    return _cls_first(cls_token + positions[:, :1], patches + positions[:, 1:])


def _cls_first(cls_token: Tensor, patches: Tensor) -> Tensor:
    return torch.cat([cls_token.expand(patches.shape[0], -1, -1).to(patches.dtype), patches], dim=1)


class PatchEmbeddings(nn.Module):
    """One linear map of each patch's pixels."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        patch = config.patch_shape
        self.projection = nn.Conv2d(config.num_channels, config.hidden_size, patch, stride=patch)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(N, C, H, W) to (N, L, D), patches in row-major order."""
        channels = self.projection.in_channels
        if pixel_values.ndim != 4 or pixel_values.shape[1] != channels:
            raise ValueError(f"pixel_values must be (N, {channels}, H, W), not {tuple(pixel_values.shape)}")
        planes: Tensor = self.projection(pixel_values.to(self.projection.weight.dtype))
        return planes.flatten(2).transpose(1, 2)


class Embeddings(nn.Module):
    """Patch embeddings with their positions, and the CLS token before them.

    The position table is a buffer, saved with the model and never trained, unless `train_positions`. A
    ViT has `dropout` after it all, a ViTMAE none.
    """

    position_embeddings: Tensor

    def __init__(self, config: EncoderConfig, *, train_positions: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(dropout)
        self.patch_embeddings = PatchEmbeddings(config)
        self.join: Callable[[Tensor, Tensor, Tensor], Tensor] = join_tokens
        self.cls_token = new_token(config.hidden_size, config.initializer_range)
        table = sincos_positions(config.grid_size, config.hidden_size)
        if train_positions:
            self.position_embeddings = nn.Parameter(table)
        else:
            self.register_buffer("position_embeddings", table)
        self._initialise()

    def _initialise(self) -> None:
        weight = self.patch_embeddings.projection.weight
        nn.init.xavier_uniform_(weight.view(weight.shape[0], -1))  # as the linear map that it is
        nn.init.zeros_(self.patch_embeddings.projection.bias)  # type: ignore[arg-type]

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        """The whole image: (N, C, H, W) to (N, 1 + L, D), CLS first."""
        positions = self._positions(pixel_values, interpolate_pos_encoding)
        tokens = self.join(self.patch_embeddings(pixel_values), positions, self.cls_token)
        embedded: Tensor = self.dropout(tokens)
        return embedded

    def patches(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        """(N, C, H, W) to (N, L, D) with positions. Raises `ValueError` for a size that does not fit."""
        positions = self._positions(pixel_values, interpolate_pos_encoding)
        embedded: Tensor = self.patch_embeddings(pixel_values)
        return embedded + positions[:, 1:]

    def with_cls(self, patches: Tensor) -> Tensor:
        """(N, K, D) to (N, 1 + K, D)."""
        return _cls_first(self.cls_token + self.position_embeddings[:, :1], patches)

    def _positions(self, pixel_values: Tensor, interpolate: bool) -> Tensor:
        height, width = pixel_values.shape[-2:]
        if (height, width) == self.config.image_shape:
            return self.position_embeddings
        if not interpolate:
            expected = "×".join([str(side) for side in self.config.image_shape])
            raise ValueError(
                f"the image has {height}×{width} pixels and the model {expected}; "
                "resize it, or pass interpolate_pos_encoding=True"
            )
        grid = grid_of(height, width, self.config.patch_size)
        return interpolate_grid(self.position_embeddings, self.config.grid_size, grid)
