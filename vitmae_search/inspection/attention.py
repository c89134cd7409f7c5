"""Attention as maps over a picture's patches."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import InspectionError
from vitmae_search.records import Inspection

Source = Literal["cls", "mean"] | tuple[int, int]
"""Whose attention: the CLS token's, the mean of all patches', or that of the patch at a row and column."""


def mean_attention(made: Inspection, layer: int, head: int | None = None) -> NDArray[np.float32]:
    """The attention of one head of a layer, or the mean of all its heads.

    Args:
        made: Of a picture.
        layer: 1 to the model's depth.
        head: 1 to the number of heads; None for their mean.

    Returns:
        (T, T) float32, rows sum to 1.

    Raises:
        InspectionError: There is no such layer or head.
    """
    depth, heads = made.attention.shape[:2]
    if not 1 <= layer <= depth:
        raise InspectionError(f"The model has layers 1 to {depth}, not {layer}.")
    if head is None:
        mean: NDArray[np.float32] = made.attention[layer - 1].mean(axis=0)
        return mean
    if not 1 <= head <= heads:
        raise InspectionError(f"A layer has heads 1 to {heads}, not {head}.")
    alone: NDArray[np.float32] = made.attention[layer - 1, head - 1]
    return alone


def rollout(made: Inspection, layer: int | None = None) -> NDArray[np.float32]:
    """How much of each token reaches each token through the layers 1 to `layer`.

    Half of a layer's output counts as its input, which the residual connection passes on; heads count alike
    (Abnar and Zuidema, "Quantifying Attention Flow in Transformers", 2020, section 3).

    Args:
        made: Of a picture.
        layer: 1 to the model's depth; None for the last.

    Returns:
        (T, T) float32, rows sum to 1.

    Raises:
        InspectionError: There is no such layer.
    """
    depth, _, tokens, _ = made.attention.shape
    if layer is not None and not 1 <= layer <= depth:
        raise InspectionError(f"The model has layers 1 to {depth}, not {layer}.")
    flow = np.eye(tokens)
    for attention in made.attention[:layer].mean(axis=1, dtype=np.float64):
        mixed = attention + np.eye(tokens)
        flow = mixed / mixed.sum(axis=1, keepdims=True) @ flow
    return flow.astype(np.float32)


def attention_map(
    made: Inspection, attention: NDArray[np.float32], source: Source = "cls"
) -> NDArray[np.float32]:
    """What one token takes from each patch.

    Args:
        made: Of a picture.
        attention: (T, T), of `mean_attention` or `rollout`.
        source: Whose.

    Returns:
        (gh, gw) float32; less than 1 in sum, as a part goes to the CLS token.

    Raises:
        InspectionError: The picture has no such patch.
    """
    if source == "cls":
        row = attention[0, 1:]
    elif source == "mean":
        row = attention[1:, 1:].mean(axis=0)
    else:
        row = attention[1 + patch_number(made, source), 1:]
    return row.reshape(made.grid).astype(np.float32)


def patch_number(made: Inspection, place: tuple[int, int]) -> int:
    """The number of the patch at a row and column, from 0.

    Args:
        made: Of a picture.
        place: (row, column), from 0.

    Raises:
        InspectionError: The picture has no such patch.
    """
    (row, column), (rows, columns) = place, made.grid
    if not (0 <= row < rows and 0 <= column < columns):
        raise InspectionError(
            f"The picture has patches in rows 0 to {rows - 1} and columns 0 to {columns - 1}, "
            f"not one at {row}, {column}."
        )
    return row * columns + column
