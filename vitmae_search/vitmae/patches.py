"""Images cut into patches, and put together again."""

from __future__ import annotations

from torch import Tensor


def patchify(pixel_values: Tensor, patch_size: int) -> Tensor:
    """(N, C, H, W) to (N, L, p²·C): row-major patches, channels last within a patch.

    Raises `ValueError` where patches do not tile the image.
    """
    batch, channels, height, width = pixel_values.shape
    gh, gw = grid_of(height, width, patch_size)
    grid = pixel_values.reshape(batch, channels, gh, patch_size, gw, patch_size)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, gh * gw, patch_size**2 * channels)


def unpatchify(patches: Tensor, patch_size: int, grid_size: tuple[int, int]) -> Tensor:
    """The inverse of `patchify`: (N, gh·gw, p²·C) to (N, C, gh·p, gw·p)."""
    batch, count, length = patches.shape
    gh, gw = grid_size
    if count != gh * gw:
        raise ValueError(f"{count} patches do not fill a grid of {gh}×{gw}")
    channels = length // patch_size**2
    grid = patches.reshape(batch, gh, gw, patch_size, patch_size, channels)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, gh * patch_size, gw * patch_size)


def grid_of(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """Patches down and across an image. Raises `ValueError` where they do not tile it."""
    if height % patch_size or width % patch_size or not height or not width:
        raise ValueError(f"an image of {height}×{width} pixels is not tiled by patches of {patch_size}")
    return height // patch_size, width // patch_size
