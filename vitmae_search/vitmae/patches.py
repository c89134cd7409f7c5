"""Images cut into patches, and put together again."""

from __future__ import annotations

from torch import Tensor

PatchSize = int | tuple[int, int]
"""A side in pixels, or (height, width)."""


def patchify(pixel_values: Tensor, patch_size: PatchSize) -> Tensor:
    """(N, C, H, W) to (N, L, ph·pw·C): row-major patches, channels last within a patch.

    Raises `ValueError` where patches do not tile the image.
    """
    batch, channels, height, width = pixel_values.shape
    gh, gw = grid_of(height, width, patch_size)
    ph, pw = patch_shape(patch_size)
    grid = pixel_values.reshape(batch, channels, gh, ph, gw, pw)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, gh * gw, ph * pw * channels)


def unpatchify(patches: Tensor, patch_size: PatchSize, grid_size: tuple[int, int]) -> Tensor:
    """The inverse of `patchify`: (N, gh·gw, ph·pw·C) to (N, C, gh·ph, gw·pw)."""
    batch, count, length = patches.shape
    gh, gw = grid_size
    if count != gh * gw:
        raise ValueError(f"{count} patches do not fill a grid of {gh}×{gw}")
    ph, pw = patch_shape(patch_size)
    channels = length // (ph * pw)
    grid = patches.reshape(batch, gh, gw, ph, pw, channels)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, gh * ph, gw * pw)


def grid_of(height: int, width: int, patch_size: PatchSize) -> tuple[int, int]:
    """Patches down and across an image. Raises `ValueError` where they do not tile it."""
    ph, pw = patch_shape(patch_size)
    if height % ph or width % pw or not height or not width:
        patch = str(ph) if ph == pw else f"{ph}×{pw}"
        raise ValueError(f"an image of {height}×{width} pixels is not tiled by patches of {patch}")
    return height // ph, width // pw


def patch_shape(patch_size: PatchSize) -> tuple[int, int]:
    """Height and width of a patch."""
    return patch_size if isinstance(patch_size, tuple) else (patch_size, patch_size)
