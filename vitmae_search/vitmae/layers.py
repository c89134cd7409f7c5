"""The parts of the models: transformer layers, patches and position tables.

Parameters carry the names of the hub's checkpoints, so that a state dict goes to disk as it is; some modules
hold a `dense` for that reason alone. `patchify` and its inverse, the tables of two-dimensional sines and
cosines, and their interpolation are functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vitmae_search.errors import ConfigError
from vitmae_search.vitmae.config import (
    Activation,
    AttentionImplementation,
    EncoderConfig,
    ViTMAEConfig,
    activation_function,
)


@dataclass(frozen=True, slots=True)
class LayerShape:
    """The sizes of a layer, in which the encoder's and the decoder's differ.

    Attributes:
        width: Width D of the tokens.
        heads: Number of attention heads.
        intermediate: Width of the MLP.
        activation: Activation of the MLP.
        dropout: Dropout after the output projection and after the MLP.
        attention_dropout: Dropout of attention weights.
        qkv_bias: Whether query, key and value have a bias.
        eps: Epsilon of the layer norms.
    """

    width: int
    heads: int
    intermediate: int
    activation: Activation
    dropout: float
    attention_dropout: float
    qkv_bias: bool
    eps: float

    @classmethod
    def encoder(cls, config: EncoderConfig) -> Self:
        """The sizes of an encoder's layers."""
        return cls._of(config, config.hidden_size, config.num_attention_heads, config.intermediate_size)

    @classmethod
    def decoder(cls, config: ViTMAEConfig) -> Self:
        """The sizes of a decoder's layers."""
        return cls._of(
            config,
            config.decoder_hidden_size,
            config.decoder_num_attention_heads,
            config.decoder_intermediate_size,
        )

    @classmethod
    def _of(cls, config: EncoderConfig, width: int, heads: int, intermediate: int) -> Self:
        return cls(
            width=width,
            heads=heads,
            intermediate=intermediate,
            activation=activation_function(config.hidden_act),
            dropout=config.hidden_dropout_prob,
            attention_dropout=config.attention_probs_dropout_prob,
            qkv_bias=config.qkv_bias,
            eps=config.layer_norm_eps,
        )


class SelfAttention(nn.Module):
    """Multi-head attention without its output projection."""

    def __init__(self, shape: LayerShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.scale = (shape.width // shape.heads) ** -0.5
        self.dropout = shape.attention_dropout
        self.implementation: AttentionImplementation = "sdpa"
        self.query = nn.Linear(shape.width, shape.width, bias=shape.qkv_bias)
        self.key = nn.Linear(shape.width, shape.width, bias=shape.qkv_bias)
        self.value = nn.Linear(shape.width, shape.width, bias=shape.qkv_bias)

    def forward(self, tokens: Tensor, output_attentions: bool = False) -> tuple[Tensor, Tensor | None]:
        """Mix the tokens of each image by their attention weights.

        Args:
            tokens: (N, T, D).
            output_attentions: Return the weights too, which only "eager" computes.

        Returns:
            The mixed values (N, T, D), and the weights (N, heads, T, T) or None.

        Raises:
            ConfigError: `output_attentions` with another implementation than "eager".
        """
        if output_attentions and self.implementation != "eager":
            rule = f'needs attn_implementation="eager"; {self.implementation!r} never makes the weights'
            raise ConfigError("output_attentions", True, rule)
        query, key, value = (self._split_heads(part) for part in self._project(tokens))
        dropout = self.dropout if self.training else 0.0
        weights = None
        if self.implementation == "sdpa":
            mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        else:
            scores = (query * self.scale) @ key.transpose(2, 3)
            weights = scores.softmax(dim=-1)  # (N, heads, T, T); sums are in fp32 for any input dtype
            mixed = functional.dropout(weights, dropout).to(value.dtype) @ value
        merged = mixed.transpose(1, 2).flatten(2)  # (N, heads, T, d) to (N, T, heads·d)
        return merged, weights if output_attentions else None

    def _project(self, tokens: Tensor) -> Sequence[Tensor]:
        """Queries, keys and values, each (N, T, D). In training one product gives all three: it is faster."""
        projections = (self.query, self.key, self.value)
        if not self.training or not all(_may_be_fused(project) for project in projections):
            return [project(tokens) for project in projections]
        weight = torch.cat(tuple(one.weight for one in projections))  # (3·D, D)
        biases = tuple(one.bias for one in projections if one.bias is not None)
        return functional.linear(tokens, weight, torch.cat(biases) if biases else None).chunk(3, dim=-1)

    def _split_heads(self, tokens: Tensor) -> Tensor:
        """(N, T, D) to (N, heads, T, D / heads)."""
        batch, length, width = tokens.shape
        return tokens.view(batch, length, self.heads, width // self.heads).transpose(1, 2)


def _may_be_fused(linear: nn.Module) -> bool:
    """Whether nothing but a plain product happens in a linear map, so that its weight may be read directly.

    Adapters (LoRA) and parametrisations change the class; Accelerate's offloading replaces `forward`; others
    register hooks.
    """
    hooked = linear._forward_hooks or linear._forward_pre_hooks or "forward" in linear.__dict__
    return type(linear) is nn.Linear and not hooked


class Dense(nn.Module):
    """A linear map that the hub's checkpoints name `dense`, followed by dropout."""

    def __init__(self, in_features: int, out_features: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, out_features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map each token: (N, T, in_features) to (N, T, out_features)."""
        dropped: Tensor = self.dropout(self.dense(tokens))
        return dropped


class Attention(nn.Module):
    """Self-attention with its output projection."""

    def __init__(self, shape: LayerShape) -> None:
        super().__init__()
        self.attention = SelfAttention(shape)
        self.output = Dense(shape.width, shape.width, shape.dropout)

    def forward(self, tokens: Tensor, output_attentions: bool = False) -> tuple[Tensor, Tensor | None]:
        """Mix tokens, and project what comes out.

        Args:
            tokens: (N, T, D).
            output_attentions: Return the attention weights too.

        Returns:
            (N, T, D), and the weights (N, heads, T, T) or None.
        """
        mixed, weights = self.attention(tokens, output_attentions)
        return self.output(mixed), weights


_CHECKPOINT = partial(checkpoint, use_reentrant=False)


class Layer(nn.Module):
    """A transformer layer with norms first: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, shape: LayerShape) -> None:
        super().__init__()
        self.attention = Attention(shape)
        self.intermediate = Dense(shape.width, shape.intermediate)
        self.output = Dense(shape.intermediate, shape.width, shape.dropout)
        self.layernorm_before = nn.LayerNorm(shape.width, eps=shape.eps)
        self.layernorm_after = nn.LayerNorm(shape.width, eps=shape.eps)
        self.activation = shape.activation
        self.gradient_checkpointing = False
        self._gradient_checkpointing_func: Callable[..., Any] = _CHECKPOINT

    def forward(self, tokens: Tensor, output_attentions: bool = False) -> tuple[Tensor, Tensor | None]:
        """Run the layer.

        Args:
            tokens: (N, T, D).
            output_attentions: Return the attention weights too.

        Returns:
            (N, T, D), and the weights (N, heads, T, T) or None.
        """
        mixed, weights = self.attention(self.layernorm_before(tokens), output_attentions)
        tokens = tokens + mixed
        hidden = self.activation(self.intermediate(self.layernorm_after(tokens)))
        return tokens + self.output(hidden), weights


def set_attention(model: nn.Module, implementation: AttentionImplementation) -> None:
    """Choose how every attention of a model is computed.

    Args:
        model: The model, or a part of it.
        implementation: "sdpa" or "eager".

    Raises:
        ConfigError: Any other implementation.
    """
    if implementation not in get_args(AttentionImplementation):
        raise ConfigError("attn_implementation", implementation, "must be sdpa or eager")
    for module in model.modules():
        if isinstance(module, SelfAttention):
            module.implementation = implementation


def set_checkpointing(
    model: nn.Module,
    enabled: bool,
    checkpoint_function: Callable[..., Any] = _CHECKPOINT,
    *,
    every_n_layers: int = 1,
) -> None:
    """Choose whether layers under `model` are computed again for their gradient, to save memory.

    Args:
        model: The model, or a part of it.
        enabled: Whether they are.
        checkpoint_function: Called with a layer and its arguments, as `torch.utils.checkpoint.checkpoint` is.
        every_n_layers: Do so for every n-th layer only.
    """
    layers = (module for module in model.modules() if isinstance(module, Layer))
    for number, layer in enumerate(layers):
        layer.gradient_checkpointing = enabled and number % every_n_layers == 0
        layer._gradient_checkpointing_func = checkpoint_function


def compile_layers(model: nn.Module, backend: str | Callable[..., Any] | None = "inductor") -> None:
    """Have `torch.compile` compile each layer of a model when it is first called.

    Layers of one shape share what was compiled, which takes a fraction of the time for the whole model.

    Args:
        model: The model, or a part of it.
        backend: A backend of `torch.compile`; None switches compilation off again.
    """
    for module in model.modules():
        if isinstance(module, Layer) and backend is None:
            module._compiled_call_impl = None  # torch has no function that undoes `Module.compile`
        elif isinstance(module, Layer):
            module.compile(backend=backend, dynamic=False)


def run_layer(
    layer: nn.Module, tokens: Tensor, output_attentions: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Run one layer; in training with gradient checkpointing, without keeping its activations.

    Args:
        layer: A `Layer`.
        tokens: (N, T, D).
        output_attentions: Return the attention weights too.

    Returns:
        (N, T, D), and the weights (N, heads, T, T) or None.
    """
    if layer.training and layer.gradient_checkpointing:
        return layer._gradient_checkpointing_func(layer, tokens, output_attentions)  # type: ignore[no-any-return, operator]
    return layer(tokens, output_attentions)  # type: ignore[no-any-return]


def run_layers(
    layers: nn.ModuleList, tokens: Tensor, *, output_hidden_states: bool, output_attentions: bool
) -> tuple[Tensor, tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
    """Run a stack of layers.

    Args:
        layers: The stack.
        tokens: (N, T, D).
        output_hidden_states: Return the input and every layer's output too.
        output_attentions: Return every layer's attention weights too.

    Returns:
        The last output (N, T, D); depth + 1 hidden states or None; weights (N, heads, T, T) a layer or None.
    """
    states: list[Tensor] = [tokens]
    attentions: list[Tensor] = []
    for layer in layers:
        tokens, weights = run_layer(layer, tokens, output_attentions)
        if output_hidden_states:
            states.append(tokens)
        if weights is not None:
            attentions.append(weights)
    return tokens, tuple(states) if output_hidden_states else None, tuple(attentions) or None


def init_linears(model: nn.Module) -> None:
    """Draw Xavier-uniform weights and zero biases for every linear map, as the authors (`models_mae.py`)."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.is_meta:  # there drawing does nothing
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


PatchSize = int | tuple[int, int]
"""A side in pixels, or (height, width)."""


def patchify(pixel_values: Tensor, patch_size: PatchSize) -> Tensor:
    """Cut images into patches: row by row, with channels last within a patch.

    Args:
        pixel_values: (N, C, H, W).
        patch_size: A side in pixels, or (ph, pw).

    Returns:
        (N, L, ph·pw·C).

    Raises:
        ValueError: Patches do not tile the image.

    Example:
        >>> patchify(torch.arange(16).reshape(1, 1, 4, 4), 2)[0, 1]
        tensor([2, 3, 6, 7])
    """
    batch, channels, height, width = pixel_values.shape
    gh, gw = grid_of(height, width, patch_size)
    ph, pw = patch_shape(patch_size)
    grid = pixel_values.reshape(batch, channels, gh, ph, gw, pw)  # (N, C, gh, ph, gw, pw)
    grid = grid.permute(0, 2, 4, 3, 5, 1)  # (N, gh, gw, ph, pw, C)
    return grid.reshape(batch, gh * gw, ph * pw * channels)


def unpatchify(patches: Tensor, patch_size: PatchSize, grid_size: tuple[int, int]) -> Tensor:
    """Put patches together to images: the inverse of `patchify`.

    Args:
        patches: (N, gh·gw, ph·pw·C).
        patch_size: A side in pixels, or (ph, pw).
        grid_size: Patches down and across: (gh, gw).

    Returns:
        (N, C, gh·ph, gw·pw).

    Raises:
        ValueError: There are more or fewer patches than the grid has places.
    """
    batch, count, length = patches.shape
    gh, gw = grid_size
    if count != gh * gw:
        raise ValueError(f"{count} patches do not fill a grid of {gh}×{gw}")
    ph, pw = patch_shape(patch_size)
    channels = length // (ph * pw)
    grid = patches.reshape(batch, gh, gw, ph, pw, channels)  # (N, gh, gw, ph, pw, C)
    grid = grid.permute(0, 5, 1, 3, 2, 4)  # (N, C, gh, ph, gw, pw)
    return grid.reshape(batch, channels, gh * ph, gw * pw)


def grid_of(height: int, width: int, patch_size: PatchSize) -> tuple[int, int]:
    """Count the patches of an image down and across.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        patch_size: A side in pixels, or (ph, pw).

    Returns:
        (gh, gw).

    Raises:
        ValueError: Patches do not tile the image.
    """
    ph, pw = patch_shape(patch_size)
    if height % ph or width % pw or not height or not width:
        patch = str(ph) if ph == pw else f"{ph}×{pw}"
        raise ValueError(f"an image of {height}×{width} pixels is not tiled by patches of {patch}")
    return height // ph, width // pw


def patch_shape(patch_size: PatchSize) -> tuple[int, int]:
    """Height and width of a patch in pixels: (ph, pw)."""
    return patch_size if isinstance(patch_size, tuple) else (patch_size, patch_size)


_TEMPERATURE = 10_000.0
"""The longest wavelength of the position table, over 2π."""


def sincos_positions(grid_size: tuple[int, int], width: int) -> Tensor:
    """Make the fixed position table of two-dimensional sines and cosines (paper, appendix A.1).

    A row is [sin x | cos x | sin y | cos y], with x across and y down. x comes first in the authors' code
    (`facebookresearch/mae`, `util/pos_embed.py`), and so in every checkpoint.

    Args:
        grid_size: Patches down and across: (gh, gw).
        width: Width D of a row; a multiple of 4.

    Returns:
        (1, 1 + gh·gw, D) float32: a row of zeros for the CLS token, then patches row by row.
    """
    gh, gw = grid_size
    quarter = width // 4
    frequencies = _TEMPERATURE ** -(np.arange(quarter) / quarter)
    x = np.outer(np.tile(np.arange(gw), gh), frequencies)  # (gh·gw, D / 4)
    y = np.outer(np.repeat(np.arange(gh), gw), frequencies)  # (gh·gw, D / 4)
    patches = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)  # (gh·gw, D)
    table = np.concatenate([np.zeros((1, width)), patches])
    return torch.from_numpy(table[np.newaxis].astype(np.float32))


def interpolate_grid(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Stretch a position table to another grid, bicubically over rows and columns.

    Args:
        table: (1, 1 + gh·gw, D), the CLS row first.
        old: The table's grid (gh, gw).
        new: The grid that is wanted.

    Returns:
        (1, 1 + new gh·gw, D), with the CLS row unchanged; the table itself for the same grid.
    """
    if old == new:
        return table
    width = table.shape[-1]
    plane = table[:, 1:].reshape(1, *old, width).permute(0, 3, 1, 2)  # (1, D, gh, gw)
    plane = functional.interpolate(plane, size=new, mode="bicubic", align_corners=False)
    patches = plane.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], width)  # (1, new gh·gw, D)
    return torch.cat([table[:, :1], patches], dim=1)


def interpolate_sequence(table: Tensor, length: int) -> Tensor:
    """Stretch a position table along the flattened sequence, bicubically, as the reference's decoder does.

    This mixes rows and columns up: it is kept for parity, while `interpolate_grid` keeps them apart.

    Args:
        table: (1, 1 + L, D), the CLS row first.
        length: Number of patches that is wanted.

    Returns:
        (1, 1 + length, D), with the CLS row unchanged; the table itself for the same length.
    """
    if table.shape[1] - 1 == length:
        return table
    line = table[:, 1:].transpose(1, 2).unsqueeze(2)  # (1, D, 1, L)
    line = functional.interpolate(line, size=(1, length), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], line.squeeze(2).transpose(1, 2)], dim=1)
