"""Tables of position embeddings: 2-D sines and cosines, and how to stretch them to another grid."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_TEMPERATURE = 10_000.0


def sincos_positions(grid_size: tuple[int, int], width: int) -> Tensor:
    """The fixed table of the paper's code, (1, 1 + gh·gw, width) float32; the CLS row is zero.

    A row is [sin x | cos x | sin y | cos y], x across and y down, patches in row-major order. (x comes
    first in `facebookresearch/mae`, `util/pos_embed.py`, and so in every checkpoint.) `width` is a
    multiple of 4.
    """
    gh, gw = grid_size
    quarter = width // 4
    frequencies = _TEMPERATURE ** -(np.arange(quarter) / quarter)
    x = np.outer(np.tile(np.arange(gw), gh), frequencies)  # (gh·gw, width / 4)
    y = np.outer(np.repeat(np.arange(gh), gw), frequencies)
    patches = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)
    table = np.concatenate([np.zeros((1, width)), patches])
    return torch.from_numpy(table[np.newaxis].astype(np.float32))


def interpolate_grid(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Stretch a (1, 1 + old_h·old_w, D) table to the grid `new`, bicubically over the plane."""
    if old == new:
        return table
    width = table.shape[-1]
    plane = table[:, 1:].reshape(1, *old, width).permute(0, 3, 1, 2)  # (1, D, old_h, old_w)
    plane = functional.interpolate(plane, size=new, mode="bicubic", align_corners=False)
    patches = plane.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], width)
    return torch.cat([table[:, :1], patches], dim=1)


def interpolate_sequence(table: Tensor, length: int) -> Tensor:
    """Stretch a (1, 1 + L, D) table to `length` patches along the flattened sequence, bicubically.

    This is what the reference does in its decoder. It knows nothing of rows and columns: kept for
    parity, while `interpolate_grid` is the sound choice.
    """
    if table.shape[1] - 1 == length:
        return table
    line = table[:, 1:].transpose(1, 2).unsqueeze(2)  # (1, D, 1, L)
    line = functional.interpolate(line, size=(1, length), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], line.squeeze(2).transpose(1, 2)], dim=1)
