"""Pool an image's tokens to one vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional

from vitmae_search.errors import ConfigError

Pooling = Literal["cls", "mean", "gem", "moments", "grid"]
"""The CLS token, or of the patches their mean, generalised mean, mean and standard deviation, or the means of
4 × 4 parts of the image."""

GRID_SIDE = 4
"""Parts of "grid" along each side of the image."""

GEM_POWER = 3.0
"""p of the generalised mean, from which its authors start."""


def pool(
    tokens: Tensor,
    pooling: Pooling,
    *,
    power: float = GEM_POWER,
    grid_size: tuple[int, int] | None = None,
) -> Tensor:
    """Pool the tokens of each image.

    Args:
        tokens: (N, 1 + L, D), CLS first.
        pooling: "cls", the CLS token. "mean", the mean of the patches. "gem", their generalised mean
            (Radenović et al., arXiv 1711.02512): sign(m)·|m|^(1/p) with m the mean of sign(x)·|x|^p, because
            a transformer's features have both signs. "moments", the mean and the standard deviation (over L,
            not L - 1) of each feature. "grid", the means of 4 × 4 parts of the image, row by row: it keeps
            where things are.
        power: p of "gem".
        grid_size: Rows and columns of the patches, for "grid"; None where they are a square.

    Returns:
        float32, (N, 2·D) for "moments", (N, 16·D) for "grid" and (N, D) for the others.

    Raises:
        ConfigError: Another pooling.
    """
    tokens = tokens.float()
    if pooling == "cls":
        return tokens[:, 0]
    patches = tokens[:, 1:]
    if pooling == "mean":
        return patches.mean(dim=1)
    if pooling == "gem":
        return _signed_power(_signed_power(patches, power).mean(dim=1), 1 / power)
    if pooling == "moments":
        deviation, mean = torch.std_mean(patches, dim=1, correction=0)
        return torch.cat([mean, deviation], dim=1)
    if pooling == "grid":
        rows, columns = grid_size or (math.isqrt(patches.shape[1]),) * 2
        planes = patches.reshape(len(patches), rows, columns, -1).permute(0, 3, 1, 2)
        return functional.adaptive_avg_pool2d(planes, GRID_SIDE).flatten(2).transpose(1, 2).flatten(1)
    raise ConfigError("pooling", pooling, f"must be one of {', '.join(get_args(Pooling))}")


def pool_layers(
    states: Sequence[Tensor],
    pooling: str,
    *,
    power: float = GEM_POWER,
    grid_size: tuple[int, int] | None = None,
) -> Tensor:
    """Pool hidden states of several layers to one vector an image.

    The vectors of all layers and poolings stand beside each other, layer by layer. Where there is more than
    one, each is brought to unit length first, so that all count alike: their lengths differ, and grow with
    depth.

    Args:
        states: One (N, 1 + L, D) a layer, CLS first.
        pooling: A `Pooling`, or several with a plus sign: "cls+moments".
        power: p of "gem".
        grid_size: Rows and columns of the patches, for "grid"; None where they are a square.

    Returns:
        float32, (N, `pooled_width`).

    Example:
        >>> states = [torch.rand(2, 17, 32), torch.rand(2, 17, 32)]
        >>> pool_layers(states, "cls+moments").shape, pooled_width(32, 2, "cls+moments")
        (torch.Size([2, 192]), 192)
    """
    parts = cast(list[Pooling], pooling.split("+"))
    vectors = [pool(state, part, power=power, grid_size=grid_size) for state in states for part in parts]
    if len(vectors) == 1:
        return vectors[0]
    return torch.cat([functional.normalize(vector, dim=1) for vector in vectors], dim=1)


def pooled_width(hidden_size: int, layers: int, pooling: str) -> int:
    """The length of a vector of `pool_layers`.

    Args:
        hidden_size: D.
        layers: How many layers are pooled.
        pooling: A `Pooling`, or several with a plus sign.
    """
    widths = {"moments": 2, "grid": GRID_SIDE**2}
    return hidden_size * layers * sum(widths.get(part, 1) for part in pooling.split("+"))


def _signed_power(values: Tensor, power: float) -> Tensor:
    """sign(x)·|x|^p."""
    return values.sign() * values.abs() ** power
