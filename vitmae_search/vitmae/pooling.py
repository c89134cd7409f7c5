"""From an image's tokens to one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from vitmae_search.errors import ConfigError

Pooling = Literal["cls", "mean", "gem"]
"""The CLS token, the mean of the patches, or their generalised mean."""

GEM_POWER = 3.0


def pool(tokens: Tensor, pooling: Pooling, *, power: float = GEM_POWER) -> Tensor:
    """(N, 1 + L, D), CLS first, to (N, D) float32.

    "gem" is the generalised mean (Radenović et al., arXiv 1711.02512): sign(m)·|m|^(1/p) with m the mean
    of sign(x)·|x|^p, because a transformer's features have both signs.
    """
    tokens = tokens.float()
    if pooling == "cls":
        return tokens[:, 0]
    patches = tokens[:, 1:]
    if pooling == "mean":
        return patches.mean(dim=1)
    if pooling == "gem":
        return _signed_power(_signed_power(patches, power).mean(dim=1), 1 / power)
    raise ConfigError("pooling", pooling, f"must be one of {', '.join(get_args(Pooling))}")


def pool_layers(states: Sequence[Tensor], pooling: Pooling, *, power: float = GEM_POWER) -> Tensor:
    """Layers' hidden states, each (N, 1 + L, D), to (N, D·layers) float32.

    Where there are several, each layer's vector is brought to unit length first: their magnitudes grow
    with depth, and the last would drown the others.
    """
    vectors = [pool(state, pooling, power=power) for state in states]
    if len(vectors) == 1:
        return vectors[0]
    return torch.cat([functional.normalize(vector, dim=1) for vector in vectors], dim=1)


def _signed_power(values: Tensor, power: float) -> Tensor:
    return values.sign() * values.abs() ** power
