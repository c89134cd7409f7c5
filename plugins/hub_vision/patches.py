"""What a model of the hub sees in each patch of a photo: the states of its vision tower as a grid."""

from __future__ import annotations

import inspect
import math
from typing import Any

from torch import Tensor, nn

from vitmae_search.errors import ModelError
from vitmae_search.vitmae.normalization import pixel_values

MIN_PATCHES = 12
"""Patches on a side, at least, where the model takes larger images: a ninth of a photo then has 4 × 4."""
_MOST_OTHER_TOKENS = 16
"""Tokens before those of the patches: the class token and registers."""


class PatchStates(nn.Module):
    """The vision tower of a model of `transformers`, with its normalization.

    Args:
        model: The model, with or without a text tower.
        levels: (3, 256), as of `normalization_table`.
        shape: Height and width of the images that the model is made for.

    Attributes:
        shape: Height and width of the images that it is given.
    """

    levels: Tensor

    def __init__(self, model: Any, levels: Tensor, shape: tuple[int, int]) -> None:
        super().__init__()
        self.tower = getattr(model, "vision_model", model)
        self.register_buffer("levels", levels)
        self._patch = _patch_shape(self.tower)
        self._interpolates = "interpolate_pos_encoding" in inspect.signature(self.tower.forward).parameters
        self.shape = shape
        if self._patch is not None and self._interpolates:
            high, wide = self._patch
            self.shape = (max(shape[0], MIN_PATCHES * high), max(shape[1], MIN_PATCHES * wide))

    def forward(self, batch: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 to (N, rows, columns, C) float32.

        Raises:
            ModelError: The model's states are no grid over the photo.
        """
        more = {"interpolate_pos_encoding": True} if self._interpolates else {}
        output = self.tower(pixel_values=pixel_values(batch, self.levels), **more)
        return self._grid(output.last_hidden_state).float()

    def _grid(self, states: Tensor) -> Tensor:
        if states.ndim == 4:
            return states.permute(0, 2, 3, 1)  # of a convolutional model, (N, C, rows, columns)
        count = states.shape[1]
        rows, columns = self._rows_and_columns(count)
        return states[:, count - rows * columns :].reshape(len(states), rows, columns, -1)

    def _rows_and_columns(self, count: int) -> tuple[int, int]:
        if self._patch is not None:
            rows, columns = self.shape[0] // self._patch[0], self.shape[1] // self._patch[1]
            if 0 <= count - rows * columns <= _MOST_OTHER_TOKENS:
                return rows, columns
        side = math.isqrt(count)  # of a model that merges patches layer by layer, such as Swin
        if side**2 != count or self.shape[0] != self.shape[1]:
            raise ModelError(f"{type(self.tower).__name__} does not keep the places of a photo's parts apart")
        return side, side


def _patch_shape(tower: Any) -> tuple[int, int] | None:
    """Height and width of a patch, where the configuration says them."""
    size = getattr(tower.config, "patch_size", None)
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[1])) if isinstance(size, list | tuple) and len(size) == 2 else None
