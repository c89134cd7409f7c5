"""One transformer layer (pre-norm), whose parameters carry the names of the hub's checkpoints.

The modules that only hold a `dense` are there for those names: a state dict goes to disk as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vitmae_search.errors import ConfigError
from vitmae_search.vitmae.activations import Activation, activation_function
from vitmae_search.vitmae.config import EncoderConfig, ViTMAEConfig

AttentionImplementation = Literal["sdpa", "eager"]
"""Same results. "sdpa" is the fused kernel; "eager" trains about twice as fast in bf16 on a CPU, and is
the one that can return attention weights."""


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What a layer needs to know: the encoder's and the decoder's layers differ in nothing else."""

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
        return cls._of(config, config.hidden_size, config.num_attention_heads, config.intermediate_size)

    @classmethod
    def decoder(cls, config: ViTMAEConfig) -> Self:
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
        """(N, T, D) to (N, T, D), and the weights (N, heads, T, T) if asked for, which only "eager" has."""
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
            weights = scores.softmax(dim=-1)  # sums in fp32 whatever goes in and comes out
            mixed = functional.dropout(weights, dropout).to(value.dtype) @ value
        merged = mixed.transpose(1, 2).flatten(2)  # (N, heads, T, d) to (N, T, heads·d)
        return merged, weights if output_attentions else None

    def _project(self, tokens: Tensor) -> Sequence[Tensor]:
        """Queries, keys and values, each (N, T, D)."""
        projections = (self.query, self.key, self.value)
        if not self.training:
            return [project(tokens) for project in projections]
        weight = torch.cat(tuple(one.weight for one in projections))  # one product in place of three
        biases = tuple(one.bias for one in projections if one.bias is not None)
        return functional.linear(tokens, weight, torch.cat(biases) if biases else None).chunk(3, dim=-1)

    def _split_heads(self, tokens: Tensor) -> Tensor:
        batch, length, width = tokens.shape
        return tokens.view(batch, length, self.heads, width // self.heads).transpose(1, 2)  # (N, heads, T, d)


class Dense(nn.Module):
    """A linear map under the name `dense`, with dropout after it."""

    def __init__(self, in_features: int, out_features: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, out_features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, in) to (N, T, out)."""
        dropped: Tensor = self.dropout(self.dense(tokens))
        return dropped


class Attention(nn.Module):
    """Self-attention with its output projection."""

    def __init__(self, shape: LayerShape) -> None:
        super().__init__()
        self.attention = SelfAttention(shape)
        self.output = Dense(shape.width, shape.width, shape.dropout)

    def forward(self, tokens: Tensor, output_attentions: bool = False) -> tuple[Tensor, Tensor | None]:
        """(N, T, D) to (N, T, D), and the weights (N, heads, T, T) if asked for."""
        mixed, weights = self.attention(tokens, output_attentions)
        return self.output(mixed), weights


class Layer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, shape: LayerShape) -> None:
        super().__init__()
        self.attention = Attention(shape)
        self.intermediate = Dense(shape.width, shape.intermediate)
        self.output = Dense(shape.intermediate, shape.width, shape.dropout)
        self.layernorm_before = nn.LayerNorm(shape.width, eps=shape.eps)
        self.layernorm_after = nn.LayerNorm(shape.width, eps=shape.eps)
        self.activation = shape.activation
        self.checkpointing = False

    def forward(self, tokens: Tensor, output_attentions: bool = False) -> tuple[Tensor, Tensor | None]:
        """(N, T, D) to (N, T, D), and the weights (N, heads, T, T) if asked for."""
        mixed, weights = self.attention(self.layernorm_before(tokens), output_attentions)
        tokens = tokens + mixed
        hidden = self.activation(self.intermediate(self.layernorm_after(tokens)))
        return tokens + self.output(hidden), weights


def set_attention(model: nn.Module, implementation: AttentionImplementation) -> None:
    """Choose how every attention under `model` is computed."""
    if implementation not in get_args(AttentionImplementation):
        raise ConfigError("attn_implementation", implementation, "must be sdpa or eager")
    for module in model.modules():
        if isinstance(module, SelfAttention):
            module.implementation = implementation


def set_checkpointing(model: nn.Module, enabled: bool) -> None:
    """Choose whether every layer under `model` is computed again for its gradient, to save memory."""
    for module in model.modules():
        if isinstance(module, Layer):
            module.checkpointing = enabled


def compile_layers(model: nn.Module, backend: str | Callable[..., Any] | None = "inductor") -> None:
    """Have `torch.compile` compile every layer under `model` when it is first called; with None no longer.

    Layers of one shape share what was compiled, so that it takes a fraction of the whole model's time.
    """
    for module in model.modules():
        if isinstance(module, Layer) and backend is None:
            module._compiled_call_impl = None  # torch has no other way back
        elif isinstance(module, Layer):
            module.compile(backend=backend, dynamic=False)


def run_layer(
    layer: nn.Module, tokens: Tensor, output_attentions: bool = False
) -> tuple[Tensor, Tensor | None]:
    """One layer; in training with checkpointing, its activations are not kept."""
    if layer.training and layer.checkpointing:
        return checkpoint(layer, tokens, output_attentions, use_reentrant=False)  # type: ignore[no-any-return]
    return layer(tokens, output_attentions)  # type: ignore[no-any-return]


def run_layers(
    layers: nn.ModuleList, tokens: Tensor, *, output_hidden_states: bool, output_attentions: bool
) -> tuple[Tensor, tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
    """Through all layers: the last one's output, all states (the input first), all attention weights."""
    states: list[Tensor] = [tokens]
    attentions: list[Tensor] = []
    for layer in layers:
        tokens, weights = run_layer(layer, tokens, output_attentions)
        if output_hidden_states:
            states.append(tokens)
        if weights is not None:
            attentions.append(weights)
    return tokens, tuple(states) if output_hidden_states else None, tuple(attentions) or None


def initialise_linears(model: nn.Module) -> None:
    """Xavier-uniform weights and zero biases, as the authors initialise; layer norms are born right."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def new_token(width: int, deviation: float) -> nn.Parameter:
    """A learned token (1, 1, width), drawn from N(0, deviation²)."""
    token = nn.Parameter(torch.empty(1, 1, width))
    if not token.is_meta:  # there torch imports its compiler, for seconds, and then draws nothing
        nn.init.normal_(token, std=deviation)
    return token
