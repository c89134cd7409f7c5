"""Which patches the encoder sees, and how the decoder puts them back in order.

"Masked" always means removed: `mask` is 1 where the encoder saw nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vitmae_search.errors import ConfigError


class Masking(NamedTuple):
    """`ids_keep` (N, K) int64, the patches kept, in the encoder's order.

    `mask` (N, L) float32 in patch order, 1 = removed. `ids_restore` (N, L) int64 sorts the sequence
    "kept, then removed" back into patch order. `in_order`: nothing is removed, nothing shuffled.
    """

    ids_keep: Tensor
    mask: Tensor
    ids_restore: Tensor
    in_order: bool = False


def num_kept(num_patches: int, mask_ratio: float) -> int:
    """int(L · (1 - r)), truncated in floating point as the reference does. Needs 0 ≤ r < 1."""
    if not 0 <= mask_ratio < 1:
        raise ConfigError("mask_ratio", mask_ratio, "must be a number in [0, 1)")
    return int(num_patches * (1 - mask_ratio))


def mask_by_noise(noise: Tensor, mask_ratio: float, *, keep_order: bool = True) -> Masking:
    """Keep the patches with the lowest `noise` (N, L): per-sample shuffling, as in section 3 of the paper.

    At mask_ratio 0 the noise is not looked at and the order is the identity, so that patch tokens mean
    the same place in every image and every run; without `keep_order` they are shuffled there too, as the
    reference does.
    """
    kept = num_kept(noise.shape[1], mask_ratio)
    if kept == noise.shape[1] and keep_order:
        return keep_all(noise.shape[0], noise.shape[1], noise.device)
    # Stable, as it always is on a CPU: patches that drew the same number fall alike on every device.
    return _masking(torch.argsort(noise, dim=1, stable=True), kept)


def mask_by_choice(removed: Tensor) -> Masking:
    """Remove the patches where `removed` (N, L) bool is true: as many in each image of the batch.

    Raises `ValueError` where they are not as many.
    """
    counts = removed.sum(dim=1)
    if bool((counts != counts[0]).any()):
        raise ValueError(f"every image must lose as many patches; these lose {counts.tolist()}")
    order = torch.argsort(removed.to(torch.uint8), dim=1, stable=True)
    return _masking(order, removed.shape[1] - int(counts[0]))


def keep_all(batch: int, num_patches: int, device: torch.device) -> Masking:
    """Remove nothing: identity order."""
    ids = torch.arange(num_patches, device=device).expand(batch, -1)
    return Masking(ids, torch.zeros(batch, num_patches, device=device), ids, in_order=True)


def take_patches(patches: Tensor, ids: Tensor) -> Tensor:
    """Rows `ids` (N, K) of `patches` (N, L, D): (N, K, D)."""
    return torch.gather(patches, 1, ids.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))


def _masking(ids_shuffle: Tensor, kept: int) -> Masking:
    ids_restore = torch.argsort(ids_shuffle, dim=1)
    mask = (ids_restore >= kept).to(torch.float32)  # ids_restore is each patch's place in the shuffle
    return Masking(ids_shuffle[:, :kept], mask, ids_restore)
