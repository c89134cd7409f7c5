"""The decoder: from the encoder's tokens to the pixels of every patch."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from vitmae_search.vitmae.config import ViTMAEConfig
from vitmae_search.vitmae.layers import Layer, LayerShape, initialise_linears, new_token, run_layers
from vitmae_search.vitmae.masking import take_patches
from vitmae_search.vitmae.outputs import ViTMAEDecoderOutput
from vitmae_search.vitmae.positions import interpolate_grid, interpolate_sequence, sincos_positions

DecoderInterpolation = Literal["sequence", "grid"]
"""How the decoder's positions fit another image size: as the reference does, or over rows and columns."""


class ViTMAEDecoder(nn.Module):
    """Mask tokens in the places of removed patches, a small transformer, and a linear map to pixels.

    Its position table is a buffer: saved with the model, never trained.
    """

    decoder_pos_embed: Tensor

    def __init__(self, config: ViTMAEConfig) -> None:
        super().__init__()
        width = config.decoder_hidden_size
        self.config = config
        self.decoder_embed = nn.Linear(config.hidden_size, width)
        self.mask_token = new_token(width, config.initializer_range)
        self.register_buffer("decoder_pos_embed", sincos_positions(config.grid_size, width))
        shape = LayerShape.decoder(config)
        self.decoder_layers = nn.ModuleList(Layer(shape) for _ in range(config.decoder_num_hidden_layers))
        self.decoder_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.decoder_pred = nn.Linear(width, math.prod(config.patch_shape) * config.num_channels)
        initialise_linears(self)

    def forward(
        self,
        hidden_states: Tensor,
        ids_restore: Tensor,
        grid_size: tuple[int, int] | None = None,
        *,
        interpolation: DecoderInterpolation = "sequence",
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> ViTMAEDecoderOutput:
        """Tokens (N, 1 + K, D), CLS first, and `ids_restore` (N, L) to `logits` (N, L, ph·pw·C).

        `grid_size` is the image's grid where it is not the configuration's.
        """
        tokens = self._restore(self.decoder_embed(hidden_states), ids_restore)
        tokens = tokens + self._positions(grid_size or self.config.grid_size, interpolation)
        tokens, states, attentions = run_layers(
            self.decoder_layers,
            tokens,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )
        logits = self.decoder_pred(self.decoder_norm(tokens))
        return ViTMAEDecoderOutput(logits[:, 1:], states, attentions)

    def _restore(self, tokens: Tensor, ids_restore: Tensor) -> Tensor:
        """(N, 1 + K, D) to (N, 1 + L, D), patches in their order, mask tokens where they were removed."""
        batch, length = ids_restore.shape
        removed = length + 1 - tokens.shape[1]
        mask_tokens = self.mask_token.to(tokens.dtype).expand(batch, removed, -1)
        shuffled = torch.cat([tokens[:, 1:], mask_tokens], dim=1)
        return torch.cat([tokens[:, :1], take_patches(shuffled, ids_restore)], dim=1)

    def _positions(self, grid: tuple[int, int], interpolation: DecoderInterpolation) -> Tensor:
        if interpolation == "grid":
            return interpolate_grid(self.decoder_pos_embed, self.config.grid_size, grid)
        return interpolate_sequence(self.decoder_pos_embed, grid[0] * grid[1])
