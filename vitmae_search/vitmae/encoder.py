"""The encoder: `ViTMAEModel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitmae_search.errors import ConfigError
from vitmae_search.vitmae.config import ViTMAEConfig
from vitmae_search.vitmae.layers import (
    AttentionImplementation,
    Layer,
    LayerShape,
    initialise_linears,
    new_token,
    run_layers,
)
from vitmae_search.vitmae.masking import Masking, keep_all, mask_by_choice, mask_by_noise, take_patches
from vitmae_search.vitmae.outputs import ViTMAEModelOutput
from vitmae_search.vitmae.patches import grid_of
from vitmae_search.vitmae.positions import interpolate_grid, sincos_positions
from vitmae_search.vitmae.pretrained import PreTrainedModel


class PatchEmbeddings(nn.Module):
    """One linear map of each patch's pixels."""

    def __init__(self, config: ViTMAEConfig) -> None:
        super().__init__()
        self.projection = nn.Conv2d(
            config.num_channels, config.hidden_size, config.patch_size, stride=config.patch_size
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(N, C, H, W) to (N, L, D), patches in row-major order."""
        channels = self.projection.in_channels
        if pixel_values.ndim != 4 or pixel_values.shape[1] != channels:
            raise ValueError(f"pixel_values must be (N, {channels}, H, W), not {tuple(pixel_values.shape)}")
        planes: Tensor = self.projection(pixel_values.to(self.projection.weight.dtype))
        return planes.flatten(2).transpose(1, 2)


class Embeddings(nn.Module):
    """Patch embeddings with their positions, and the CLS token before them.

    The position table is a buffer: saved with the model, never trained.
    """

    position_embeddings: Tensor

    def __init__(self, config: ViTMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embeddings = PatchEmbeddings(config)
        self.cls_token = new_token(config.hidden_size, config.initializer_range)
        table = sincos_positions(config.grid_size, config.hidden_size)
        self.register_buffer("position_embeddings", table)
        self._initialise()

    def _initialise(self) -> None:
        weight = self.patch_embeddings.projection.weight
        nn.init.xavier_uniform_(weight.view(weight.shape[0], -1))  # as the linear map that it is
        nn.init.zeros_(self.patch_embeddings.projection.bias)  # type: ignore[arg-type]

    def patches(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        """(N, C, H, W) to (N, L, D) with positions. Raises `ValueError` for a size that does not fit."""
        positions = self._positions(pixel_values, interpolate_pos_encoding)
        embedded: Tensor = self.patch_embeddings(pixel_values)
        return embedded + positions[:, 1:]

    def with_cls(self, patches: Tensor) -> Tensor:
        """(N, K, D) to (N, 1 + K, D)."""
        cls_token = self.cls_token + self.position_embeddings[:, :1]
        return torch.cat([cls_token.expand(len(patches), -1, -1).to(patches.dtype), patches], dim=1)

    def _positions(self, pixel_values: Tensor, interpolate: bool) -> Tensor:
        height, width = pixel_values.shape[-2:]
        if (height, width) == self.config.image_shape:
            return self.position_embeddings
        if not interpolate:
            expected = "×".join(map(str, self.config.image_shape))
            raise ValueError(
                f"the image has {height}×{width} pixels and the model {expected}; "
                "resize it, or pass interpolate_pos_encoding=True"
            )
        grid = grid_of(height, width, self.config.patch_size)
        return interpolate_grid(self.position_embeddings, self.config.grid_size, grid)


class Encoder(nn.Module):
    """The stack of layers, under the name `layer` that the hub's checkpoints have."""

    def __init__(self, config: ViTMAEConfig) -> None:
        super().__init__()
        shape = LayerShape.encoder(config)
        self.layer = nn.ModuleList(Layer(shape) for _ in range(config.num_hidden_layers))


class ViTMAEModel(PreTrainedModel):
    """The encoder of a masked autoencoder (arXiv 2111.06377).

    `forward` removes patches as in pretraining; `encode` sees the whole image and is what embeddings
    are made from.
    """

    state_prefix = "vit."

    def __init__(
        self, config: ViTMAEConfig, *, attn_implementation: AttentionImplementation = "sdpa"
    ) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        initialise_linears(self)
        self.set_attn_implementation(attn_implementation)

    def forward(
        self,
        pixel_values: Tensor,
        noise: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        *,
        mask: Tensor | None = None,
        mask_ratio: float | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
    ) -> Any:
        """Encode the patches that are kept.

        `pixel_values` (N, C, H, W), normalised. `noise` (N, L): the lowest are kept; drawn from [0, 1)
        where None. `mask` (N, L) bool, True = removed, decides instead of noise. `mask_ratio` overrides
        the configuration's; at 0 patches stay in their order. With `interpolate_pos_encoding` any size
        that patches tile will do. Returns a `ViTMAEModelOutput`, or a tuple with `return_dict=False`.
        """
        patches = self.embeddings.patches(pixel_values, interpolate_pos_encoding)
        masking = self._masking(patches, noise, mask, mask_ratio)
        tokens = self.embeddings.with_cls(
            patches if masking.complete else take_patches(patches, masking.ids_keep)
        )
        tokens, states, attentions = run_layers(
            self.encoder.layer,
            tokens,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )
        output = ViTMAEModelOutput(
            self.layernorm(tokens), masking.mask, masking.ids_restore, states, attentions
        )
        return output if return_dict else output.to_tuple()

    def encode(
        self, pixel_values: Tensor, layers: Sequence[int], *, interpolate_pos_encoding: bool = False
    ) -> tuple[Tensor, ...]:
        """The hidden states of whole images after each of `layers`, every one (N, 1 + L, D), CLS first.

        Layer 0 is the embeddings; the last, `config.num_hidden_layers`, is taken after the final layer
        norm, as `last_hidden_state` is. Nothing is removed, shuffled or drawn, and no layer runs beyond
        the highest asked for.
        """
        depth = self.config.num_hidden_layers
        if not layers or any(not 0 <= layer <= depth for layer in layers):
            raise ConfigError("layers", tuple(layers), f"must be layers from 0 to {depth}")
        tokens = self.embeddings.with_cls(self.embeddings.patches(pixel_values, interpolate_pos_encoding))
        states = {0: tokens}
        for number, layer in enumerate(self.encoder.layer[: max(layers)], start=1):
            tokens, _ = layer(tokens)
            states[number] = tokens
        if depth in layers:
            states[depth] = self.layernorm(tokens)
        return tuple(states[layer] for layer in layers)

    def _masking(
        self, patches: Tensor, noise: Tensor | None, mask: Tensor | None, mask_ratio: float | None
    ) -> Masking:
        batch, count = patches.shape[:2]
        ratio = self.config.mask_ratio if mask_ratio is None else mask_ratio
        given = mask if mask is not None else noise
        if given is not None and given.shape != (batch, count):
            raise ValueError(f"noise and mask must be ({batch}, {count}), not {tuple(given.shape)}")
        if mask is not None:
            return mask_by_choice(mask.to(patches.device))
        if ratio == 0:
            return keep_all(batch, count, patches.device)
        if noise is None:
            noise = torch.rand(batch, count, device=patches.device)
        return mask_by_noise(noise.to(patches.device), ratio)
