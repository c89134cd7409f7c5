"""Tables of position embeddings: 2-D sines and cosines, and how to stretch them to another grid."""

from __future__ import annotations

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
    frequencies = _TEMPERATURE ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    y, x = torch.meshgrid(
        torch.arange(gh, dtype=torch.float64), torch.arange(gw, dtype=torch.float64), indexing="ij"
    )
    x_angles = torch.outer(x.flatten(), frequencies)  # (gh·gw, width / 4)
    y_angles = torch.outer(y.flatten(), frequencies)
    patches = torch.cat([x_angles.sin(), x_angles.cos(), y_angles.sin(), y_angles.cos()], dim=1)
    cls_row = torch.zeros(1, width, dtype=torch.float64)
    return torch.cat([cls_row, patches]).unsqueeze(0).to(torch.float32)


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
