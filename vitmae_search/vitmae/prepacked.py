"""An encoder that multiplies in bf16, for inference, with weights converted once for its device.

As with autocast, norms, the residual stream, and the sums inside products and softmax stay in fp32, so that
vectors stay as close to fp32's. It is faster than autocast: weights are not converted in every call; query,
key and value are one product; bias and GELU are part of products; and a branch is added, normed and rounded
in one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitmae_search.vitmae.config import gelu_form
from vitmae_search.vitmae.fused import fused
from vitmae_search.vitmae.layers import Layer, patchify
from vitmae_search.vitmae.modeling import Encoder, EncoderModel, PatchEmbeddings, join_tokens
from vitmae_search.vitmae.products import make_linear


def prepack(model: EncoderModel, device: torch.device) -> None:
    """Convert an encoder in place for inference in bf16; its outputs stay fp32.

    Its fp32 weights are freed layer by layer, so it can no longer be trained or saved, and it returns no
    attention weights. An encoder for CUDA can be moved with `model.to`; one for a CPU cannot.

    Args:
        model: In evaluation.
        device: A CPU or a CUDA device.
    """
    embeddings, layers = model.embeddings, model.encoder.layer
    for number, layer in enumerate(layers):
        layers[number] = PackedLayer(cast(Layer, layer), device)
    model.encoder = _Encoder(layers)
    embeddings.patch_embeddings = _PatchEmbeddings(embeddings.patch_embeddings, device)  # type: ignore[assignment]
    embeddings.join = fused(join_tokens)
    model.to(device).eval().requires_grad_(False)


@fused
def norm(rows: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Layer norm, rounded to bf16.

    Args:
        rows: (R, D) fp32.
        weight: (D,) fp32.
        bias: (D,) fp32.
        eps: Added to the variance.
    """
    return functional.layer_norm(rows, weight.shape, weight, bias, eps).to(torch.bfloat16)


@fused
def add_norm(rows: Tensor, branch: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Add a residual branch, and norm the sum.

    Args:
        rows: (R, D) fp32.
        branch: (R, D) bf16.
        weight: (D,) fp32, of the norm.
        bias: (D,) fp32.
        eps: Added to the variance.

    Returns:
        The sum in fp32, and its layer norm in bf16.
    """
    rows = rows + branch
    return rows, functional.layer_norm(rows, weight.shape, weight, bias, eps).to(torch.bfloat16)


class PackedLayer(nn.Module):
    """A transformer layer: x + attention(norm(x)), then x + mlp(norm(x)), with x in fp32.

    Args:
        layer: Its weights are converted.
        device: Where it computes.
    """

    def __init__(self, layer: Layer, device: torch.device) -> None:
        super().__init__()
        attention = layer.attention.attention
        projections = [attention.query, attention.key, attention.value]
        biases = [one.bias for one in projections if one.bias is not None]
        self.heads = attention.heads
        self.qkv = make_linear(
            torch.cat(tuple(one.weight for one in projections)),
            torch.cat(tuple(biases)) if biases else None,
            device,
        )
        gelu = gelu_form(layer.activation)
        self.activation = layer.activation if gelu is None else None
        attn_proj, fc1, fc2 = layer.attention.output.dense, layer.intermediate.dense, layer.output.dense
        self.attn_proj = make_linear(attn_proj.weight, attn_proj.bias, device)
        self.fc1 = make_linear(fc1.weight, fc1.bias, device, gelu=gelu)
        self.fc2 = make_linear(fc2.weight, fc2.bias, device)
        self.before, self.after = layer.layernorm_before, layer.layernorm_after

    def forward(self, tokens: Tensor, output_attentions: bool = False) -> tuple[Tensor, None]:
        """Apply the layer.

        Args:
            tokens: (N, T, D) fp32.
            output_attentions: Ignored; there are no attention weights.

        Returns:
            (N, T, D) fp32, and None.
        """
        return next(_states([self], tokens)), None

    def attention(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """The attention branch.

        Args:
            rows: (N·T, D) bf16, normed.
            shape: (N, T, D).

        Returns:
            (N·T, D) bf16.
        """
        batch, length, width = shape
        parts = self.qkv(rows).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)  # views, each (N, heads, T, d)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self.attn_proj(attended.transpose(1, 2).reshape(batch * length, width))

    def mlp(self, rows: Tensor) -> Tensor:
        """The MLP branch: (N·T, D) bf16, normed, to (N·T, D) bf16."""
        hidden = self.fc1(rows)
        return self.fc2(hidden if self.activation is None else self.activation(hidden))


def _states(layers: Sequence[PackedLayer], tokens: Tensor) -> Iterator[Tensor]:
    """The tokens (N, T, D) after each layer. Each sum is normed for the next layer in the same step."""
    rows = tokens.flatten(0, 1)
    normed = norm(rows, *_norm_arguments(layers[0].before)) if layers else rows
    for number, layer in enumerate(layers, start=1):
        branch = layer.attention(normed, tokens.shape)
        rows, normed = add_norm(rows, branch, *_norm_arguments(layer.after))
        branch = layer.mlp(normed)
        if number < len(layers):
            rows, normed = add_norm(rows, branch, *_norm_arguments(layers[number].before))
        else:
            rows = rows + branch
        yield rows.view(tokens.shape)


def _norm_arguments(layernorm: nn.LayerNorm) -> tuple[Tensor, Tensor, float]:
    return layernorm.weight, layernorm.bias, layernorm.eps


class _Encoder(Encoder):
    """A stack of packed layers."""

    def __init__(self, layers: nn.ModuleList) -> None:
        nn.Module.__init__(self)
        self.layer = layers

    def states(self, tokens: Tensor, depth: int) -> Iterator[Tensor]:
        return _states(cast(Sequence[PackedLayer], list(self.layer)[:depth]), tokens)


class _PatchEmbeddings(nn.Module):
    """`PatchEmbeddings` as a linear layer on flattened patches."""

    def __init__(self, embeddings: PatchEmbeddings, device: torch.device) -> None:
        super().__init__()
        weight, bias = embeddings.projection.weight, embeddings.projection.bias  # (D, C, ph, pw)
        self.patch_size = cast(Sequence[int], embeddings.projection.kernel_size)
        self.linear = make_linear(weight.permute(0, 2, 3, 1).flatten(1), bias, device)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(N, C, H, W) to (N, L, D) bf16."""
        height, width = self.patch_size
        patches = patchify(pixel_values.to(torch.bfloat16), (height, width))
        return self.linear(patches.flatten(0, 1)).view(*patches.shape[:2], -1)
