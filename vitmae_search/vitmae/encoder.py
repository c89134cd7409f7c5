"""The encoders: what all of them do, and `ViTMAEModel`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from vitmae_search.errors import ConfigError
from vitmae_search.vitmae.config import EncoderConfig, ViTMAEConfig
from vitmae_search.vitmae.embeddings import Embeddings
from vitmae_search.vitmae.layers import (
    AttentionImplementation,
    Layer,
    LayerShape,
    initialise_linears,
    run_layer,
    run_layers,
)
from vitmae_search.vitmae.masking import Masking, keep_all, mask_by_choice, mask_by_noise, take_patches
from vitmae_search.vitmae.outputs import ViTMAEModelOutput
from vitmae_search.vitmae.patches import grid_of
from vitmae_search.vitmae.pretrained import PreTrainedModel


class Encoder(nn.Module):
    """The stack of layers, under the name `layer` that the hub's checkpoints have."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        shape = LayerShape.encoder(config)
        self.layer = nn.ModuleList(Layer(shape) for _ in range(config.num_hidden_layers))

    def states(self, tokens: Tensor, depth: int) -> Iterator[Tensor]:
        """The tokens (N, T, D) after each of the first `depth` layers, one after the other."""
        for layer in islice(self.layer, depth):
            tokens, _ = run_layer(layer, tokens)
            yield tokens


class EncoderModel(PreTrainedModel):
    """Embeddings, layers and a final norm, and what can be read from them without a mask."""

    state_prefix = "vit."

    def __init__(self, config: EncoderConfig, embeddings: Embeddings) -> None:
        super().__init__(config)
        self.embeddings = embeddings
        self.encoder = Encoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

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
        tokens = self.embeddings(pixel_values, interpolate_pos_encoding)
        after = enumerate(self.encoder.states(tokens, max(layers)), start=1)
        states = {0: tokens}
        states.update((number, state) for number, state in after if number in layers)
        if depth in layers:
            states[depth] = self.layernorm(states[depth])
        return tuple(states[layer] for layer in layers)

    def feature_maps(
        self, pixel_values: Tensor, layers: Sequence[int], *, interpolate_pos_encoding: bool = False
    ) -> tuple[Tensor, ...]:
        """Patch tokens after each of `layers` as planes, every one (N, D, gh, gw), for dense heads.

        Rows and columns are the image's own, because nothing is shuffled. `layers` as in `encode`.
        """
        grid = grid_of(pixel_values.shape[2], pixel_values.shape[3], self.config.patch_size)
        states = self.encode(pixel_values, layers, interpolate_pos_encoding=interpolate_pos_encoding)
        return tuple(state[:, 1:].transpose(1, 2).reshape(len(state), -1, *grid) for state in states)


class ViTMAEModel(EncoderModel):
    """The encoder of a masked autoencoder (arXiv 2111.06377).

    `forward` removes patches as in pretraining; `encode` sees the whole image and is what embeddings
    are made from. `attn_implementation` None is "sdpa", or "eager" where the configuration asks for
    attention weights.
    """

    config: ViTMAEConfig

    def __init__(
        self, config: ViTMAEConfig, *, attn_implementation: AttentionImplementation | None = None
    ) -> None:
        super().__init__(config, Embeddings(config))
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
        keep_order: bool = True,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Encode the patches that are kept.

        `pixel_values` (N, C, H, W), normalised. `noise` (N, L): the lowest are kept; drawn from [0, 1)
        where None. `mask` (N, L) bool, True = removed, decides instead of noise. `mask_ratio` overrides
        the configuration's; at 0 patches stay in their order, or with `keep_order=False` are shuffled by
        the noise as in the reference. With `interpolate_pos_encoding` any size that patches tile will do.

        The last three are the configuration's where None. Returns a `ViTMAEModelOutput`, or with
        `return_dict=False` the tuple of its fields that are not None. Raises `ValueError` for pixels,
        noise or a mask of another shape, `ConfigError` for attention weights without eager attention.
        """
        patches = self.embeddings.patches(pixel_values, interpolate_pos_encoding)
        masking = self._masking(patches, noise, mask, mask_ratio, keep_order)
        kept = patches if masking.in_order else take_patches(patches, masking.ids_keep)
        tokens, states, attentions = run_layers(
            self.encoder.layer,
            self.embeddings.with_cls(kept),
            output_hidden_states=self._choice("output_hidden_states", output_hidden_states),
            output_attentions=self._choice("output_attentions", output_attentions),
        )
        output = ViTMAEModelOutput(
            self.layernorm(tokens), masking.mask, masking.ids_restore, states, attentions
        )
        return output if self._choice("return_dict", return_dict) else output.to_tuple()

    def _masking(
        self,
        patches: Tensor,
        noise: Tensor | None,
        mask: Tensor | None,
        mask_ratio: float | None,
        keep_order: bool,
    ) -> Masking:
        batch, count = patches.shape[:2]
        ratio = self.config.mask_ratio if mask_ratio is None else mask_ratio
        given = mask if mask is not None else noise
        if given is not None and given.shape != (batch, count):
            raise ValueError(f"noise and mask must be ({batch}, {count}), not {tuple(given.shape)}")
        if mask is not None:
            if mask.dtype != torch.bool:
                raise ValueError(f"mask must be bool, True where a patch is removed, not {mask.dtype}")
            return mask_by_choice(mask.to(patches.device))
        if ratio == 0 and keep_order:
            return keep_all(batch, count, patches.device)
        if noise is None:
            noise = torch.rand(batch, count, device=patches.device)
        return mask_by_noise(noise.to(patches.device), ratio, keep_order=keep_order)
