"""Choose which patches the encoder sees, and the order in which the decoder puts them back.

"Masked" always means removed: a mask is 1 where the encoder saw nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vitmae_search.errors import ConfigError


class Masking(NamedTuple):
    """Which patches of a batch are kept, of L patches K.

    Attributes:
        ids_keep: (N, K) int64, the patches kept, in the encoder's order.
        mask: (N, L) float32 in patch order, 1 = removed.
        ids_restore: (N, L) int64; sorts the sequence "kept, then removed" back into patch order.
        in_order: Nothing is removed and nothing shuffled.
    """

    ids_keep: Tensor
    mask: Tensor
    ids_restore: Tensor
    in_order: bool = False


def num_kept(num_patches: int, mask_ratio: float) -> int:
    """How many patches are kept: int(L · (1 - r)), truncated in floating point as the reference does.

    Args:
        num_patches: L.
        mask_ratio: Share of patches that are removed, 0 ≤ r < 1.

    Raises:
        ConfigError: A ratio outside [0, 1).

    Example:
        >>> num_kept(196, 0.75)
        49
    """
    if not 0 <= mask_ratio < 1:
        raise ConfigError("mask_ratio", mask_ratio, "must be a number in [0, 1)")
    return int(num_patches * (1 - mask_ratio))


def mask_by_noise(noise: Tensor, mask_ratio: float, *, keep_order: bool = True) -> Masking:
    """Keep the patches with the lowest noise: per-sample shuffling, as in section 3 of the paper.

    Args:
        noise: (N, L).
        mask_ratio: Share of patches that are removed, 0 ≤ r < 1.
        keep_order: Where nothing is removed, ignore the noise and keep patches in their order, so that a
            token means the same place in every image and every run. The reference shuffles them there too.

    Raises:
        ConfigError: A ratio outside [0, 1).
    """
    kept = num_kept(noise.shape[1], mask_ratio)
    if kept == noise.shape[1] and keep_order:
        return keep_all(noise.shape[0], noise.shape[1], noise.device)
    # A stable sort orders equal noise alike on every device; on a CPU it always is stable.
    return _masking(torch.argsort(noise, dim=1, stable=True), kept)


def mask_by_choice(removed: Tensor) -> Masking:
    """Remove the patches where `removed` (N, L) bool is true.

    Raises `ValueError` unless the images lose equally many.
    """
    counts = removed.sum(dim=1)
    if bool((counts != counts[0]).any()):
        raise ValueError(f"every image must lose as many patches; these lose {counts.tolist()}")
    order = torch.argsort(removed.to(torch.uint8), dim=1, stable=True)
    return _masking(order, removed.shape[1] - int(counts[0]))


def keep_all(batch: int, num_patches: int, device: torch.device) -> Masking:
    """Remove nothing, and keep patches in their order.

    Args:
        batch: N.
        num_patches: L.
        device: Where the tensors are made.
    """
    ids = torch.arange(num_patches, device=device).expand(batch, -1)
    return Masking(ids, torch.zeros(batch, num_patches, device=device), ids, in_order=True)


def take_patches(patches: Tensor, ids: Tensor) -> Tensor:
    """Take rows of each image's patches.

    Args:
        patches: (N, L, D).
        ids: (N, K) int64, the rows to take.

    Returns:
        (N, K, D).
    """
    index = ids.unsqueeze(-1).expand(-1, -1, patches.shape[-1])  # (N, K, D)
    return torch.gather(patches, 1, index)


def _masking(ids_shuffle: Tensor, kept: int) -> Masking:
    """The masking that keeps the first `kept` patches of an order (N, L)."""
    ids_restore = torch.argsort(ids_shuffle, dim=1)
    mask = (ids_restore >= kept).to(torch.float32)  # ids_restore is each patch's place in that order
    return Masking(ids_shuffle[:, :kept], mask, ids_restore)
