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


def pool_shares(
    states: Sequence[Tensor],
    pooling: str,
    *,
    power: float = GEM_POWER,
    grid_size: tuple[int, int] | None = None,
) -> Tensor | None:
    """What each patch of one image adds to the unit vector of `pool_layers`.

    Means are sums over patches. So is a deviation, the sum of squares over its own size, and a generalised
    mean, likewise.

    Args:
        states: As for `pool_layers`, of one image.
        pooling: As for `pool_layers`.
        power: p of "gem".
        grid_size: Rows and columns of the patches, for "grid"; None where they are a square.

    Returns:
        float32, (L, `pooled_width`), whose sum over the patches is the vector divided by its length. None
        where the CLS token is a part of it, which is no sum over patches.
    """
    parts = pooling.split("+")
    if "cls" in parts:
        return None
    shares = []
    for state in states:
        for part in parts:
            pooled = pool(state, cast(Pooling, part), power=power, grid_size=grid_size)[0]
            share = _shares(state[0, 1:].float(), pooled, part, power, grid_size)
            length = pooled.norm().clamp_min(1e-12) if len(states) * len(parts) > 1 else 1.0
            shares.append(share / length)
    together = torch.cat(shares, dim=1)
    length = together.sum(dim=0).norm().clamp_min(1e-12)
    return cast(Tensor, together / length)


def _shares(
    patches: Tensor, pooled: Tensor, pooling: str, power: float, grid_size: tuple[int, int] | None
) -> Tensor:
    """What each of the patches (L, D) adds to what they are pooled to, (W,): (L, W)."""
    count = len(patches)
    if pooling == "gem":  # s·|m|^(1/p) = m · |m|^(1/p - 1), and m is a mean
        mean = _signed_power(pooled, power)
        return _signed_power(patches, power) / count * mean.abs().clamp_min(1e-30) ** (1 / power - 1)
    if pooling == "moments":
        mean, deviation = pooled.chunk(2)
        return torch.cat([patches, (patches - mean) ** 2 / deviation.clamp_min(1e-12)], dim=1) / count
    if pooling == "grid":
        rows, columns = grid_size or (math.isqrt(count),) * 2
        alone = torch.eye(count).reshape(1, count, rows, columns)
        weights = functional.adaptive_avg_pool2d(alone, GRID_SIDE).reshape(count, -1, 1)  # (L, 16, 1)
        return (weights * patches[:, None]).flatten(1)
    return patches / count


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
