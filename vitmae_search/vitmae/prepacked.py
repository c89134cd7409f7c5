"""An encoder that multiplies in bf16, for inference, with weights laid out once for its device.

As with autocast, norms, the residual stream, and the sums inside products and softmax stay in fp32, so that
vectors stay as close to fp32's. It is faster: weights are not converted at every call, query, key and value
are one product, bias and GELU belong to products, and a branch is added, normed and rounded at once.
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
from vitmae_search.vitmae.products import product


def prepack(model: EncoderModel, device: torch.device) -> None:
    """Make `model` an encoder in bf16, in place, for inference on `device`, a CPU or a CUDA device.

    It is called as before, and gives fp32. Its fp32 weights are let go of layer by layer, so that it cannot
    be trained or saved any more, and makes no attention weights. One for CUDA can be moved (`model.to`), and
    computes where it is; one for a CPU cannot.
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
    """The layer norm of (R, D) fp32, rounded to bf16."""
    return functional.layer_norm(rows, weight.shape, weight, bias, eps).to(torch.bfloat16)


@fused
def add_norm(rows: Tensor, branch: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(R, D) fp32 with `branch`, bf16, added to it; and the layer norm of that, rounded to bf16."""
    rows = rows + branch
    return rows, functional.layer_norm(rows, weight.shape, weight, bias, eps).to(torch.bfloat16)


class PackedLayer(nn.Module):
    """What `Layer` computes: x + attention(norm(x)), then x + mlp(norm(x)), with fp32 x."""

    def __init__(self, layer: Layer, device: torch.device) -> None:
        super().__init__()
        attention = layer.attention.attention
        projections = [attention.query, attention.key, attention.value]
        biases = [one.bias for one in projections if one.bias is not None]
        self.heads = attention.heads
        self.query_key_value = product(
            torch.cat(tuple(one.weight for one in projections)),
            torch.cat(tuple(biases)) if biases else None,
            device,
        )
        gelu = gelu_form(layer.activation)
        self.activation = layer.activation if gelu is None else None
        mixed, widened, narrowed = layer.attention.output.dense, layer.intermediate.dense, layer.output.dense
        self.mixed = product(mixed.weight, mixed.bias, device)
        self.widened = product(widened.weight, widened.bias, device, gelu=gelu)
        self.narrowed = product(narrowed.weight, narrowed.bias, device)
        self.before, self.after = layer.layernorm_before, layer.layernorm_after

    def forward(self, tokens: Tensor, output_attentions: bool = False) -> tuple[Tensor, None]:
        """(N, T, D) to (N, T, D), both fp32."""
        return next(_states([self], tokens)), None

    def attend(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """The branch of the attention, of tokens of `shape` (N, T, D), normed, as bf16 rows (N·T, D)."""
        batch, length, width = shape
        parts = self.query_key_value(rows).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)  # views, each (N, heads, T, d)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.mixed(mixed.transpose(1, 2).reshape(batch * length, width))

    def think(self, rows: Tensor) -> Tensor:
        """The branch of the MLP: bf16 rows, normed, to bf16 rows (N·T, D)."""
        hidden = self.widened(rows)
        return self.narrowed(hidden if self.activation is None else self.activation(hidden))


def _states(layers: Sequence[PackedLayer], tokens: Tensor) -> Iterator[Tensor]:
    """The tokens (N, T, D) after each layer. What a layer adds is normed for the next one as it is added."""
    rows = tokens.flatten(0, 1)
    normed = norm(rows, *_of(layers[0].before)) if layers else rows
    for number, layer in enumerate(layers, start=1):
        rows, normed = add_norm(rows, layer.attend(normed, tokens.shape), *_of(layer.after))
        branch = layer.think(normed)
        if number < len(layers):
            rows, normed = add_norm(rows, branch, *_of(layers[number].before))
        else:
            rows = rows + branch
        yield rows.view(tokens.shape)


def _of(layernorm: nn.LayerNorm) -> tuple[Tensor, Tensor, float]:
    return layernorm.weight, layernorm.bias, layernorm.eps


class _Encoder(Encoder):
    """A stack of packed layers."""

    def __init__(self, layers: nn.ModuleList) -> None:
        nn.Module.__init__(self)
        self.layer = layers

    def states(self, tokens: Tensor, depth: int) -> Iterator[Tensor]:
        return _states(cast(Sequence[PackedLayer], list(self.layer)[:depth]), tokens)


class _PatchEmbeddings(nn.Module):
    """What `PatchEmbeddings` computes, as the product that it is."""

    def __init__(self, embeddings: PatchEmbeddings, device: torch.device) -> None:
        super().__init__()
        weight, bias = embeddings.projection.weight, embeddings.projection.bias  # (D, C, ph, pw)
        self.patch_size = cast(Sequence[int], embeddings.projection.kernel_size)
        self.product = product(weight.permute(0, 2, 3, 1).flatten(1), bias, device)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(N, C, H, W) to (N, L, D) bf16."""
        height, width = self.patch_size
        patches = patchify(pixel_values.to(torch.bfloat16), (height, width))
        return self.product(patches.flatten(0, 1)).view(*patches.shape[:2], -1)
